"""The acts of the page's buttons: from the page's values to those that change.

Gradio is an extra, so it comes in as an argument and is imported by nobody but `serve`. Values and their
order are those of `Page`'s wiring.
"""

import html
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch

from fss.demo import desk as work
from fss.demo import status
from fss.demo.desk import Desk
from fss.demo.models import NONE, Models, choices
from fss.errors import UserError

HINTS = {
    "paint": "Cover the object with red.",
    "scribble": "Red lines on the object, blue ones (palette) on what is not. The rest is worked out.",
    "box": "A red line across the object: what counts is the box around it.",
    "file": "A PNG as large as the photo: 0 or black is background, all else the object.",
}


class Acts:
    """Of one server; what belongs to a visitor is their `Desk`.

    Args:
        gr: gradio.
        predictors: to segment with.
        output: results that hold checkpoints.
        given: a checkpoint to offer first.
        folder: for temporary files.
        device: to make masks of strokes on.
    """

    def __init__(
        self, gr: ModuleType, predictors: Models, output: Path, given: Path | None, folder: Path,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.gr, self.predictors, self.output, self.given = gr, predictors, output, given
        self.folder, self.device = folder, device

    def selecting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, called with the number of the picture that was clicked after its own arguments."""

        def handler(event: Any, *values: Any) -> Any:
            return method(*values, event.index)

        handler.__annotations__["event"] = self.gr.SelectData  # gradio reads it to know what to pass
        return handler

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A mistake of the user's becomes a message in the page; any other error keeps its traceback."""
        try:
            yield
        except (UserError, torch.OutOfMemoryError, OSError) as error:
            raise self.gr.Error(
                self._text(error), duration=None, title="Sorry", print_exception=False
            ) from None

    def _text(self, error: Exception) -> str:
        """Safe as HTML; files by the names that the user knows, not by where they lie for now."""
        if isinstance(error, torch.OutOfMemoryError):
            return (
                "The GPU's memory is full; choose smaller tiles or a smaller model, or start with --gpus cpu."
            )
        return html.escape(re.sub(rf"{re.escape(str(self.folder))}[\\/]\w+[\\/]", "", str(error)))

    def _warn(self, problems: list[UserError]) -> None:
        for error in problems:
            self.gr.Warning(self._text(error), duration=None, title="Left out")

    def _doubt(self, reason: str) -> None:
        self.gr.Warning(html.escape(reason), duration=None, title="Expect little")

    def models_there(self) -> list[tuple[str, str]]:
        """A choice, as of `choices`."""
        return choices(self.output, self.given)

    def models(self) -> Any:
        """The state of the desk, for a page that is opened again."""
        found = self.models_there()
        return self.gr.update(choices=found, value=found[0][1])

    def hint(self, way: str) -> Any:
        return self.gr.update(info=HINTS[way]), self.gr.update(visible=way == "file", value=None)

    def _editing(self, desk: Desk) -> list[Any]:
        """The editor with the current photo, how it is marked, and what `_around` gives."""
        gr, photo = self.gr, desk.current
        if photo is None:
            return [None, gr.skip(), gr.skip(), None, *self._around(desk)]
        name = photo.support.name if photo.support else gr.skip()
        return [_canvas(photo), desk.way, name, None, *self._around(desk)]

    def _as_it_is(self, desk: Desk) -> list[Any]:
        """As `_editing`, but the editor stays as it is."""
        return [*[self.gr.skip()] * 4, *self._around(desk)]

    def _around(self, desk: Desk) -> list[Any]:
        """How the current photo was understood, the next one's button, all photos, what is needed."""
        gr, photo, classes = self.gr, desk.current, desk.classes
        marked = photo if photo and photo.support else None
        text = f'<p class="note">{html.escape(status.understood(marked))}</p>' if marked else ""
        picture = work.with_mask(marked, classes) if marked else None
        left = sum(p.support is None for p in desk.supports)
        thumbs = work.thumbnails(desk.supports, classes)
        return [
            gr.update(value=picture, visible=bool(marked)),
            gr.update(value=text, visible=bool(marked)),
            gr.update(visible=bool(marked and left)),
            gr.update(value=thumbs, visible=bool(thumbs), selected_index=desk.at if thumbs else None),
            self.needed(desk),
        ]

    def needed(self, desk: Desk) -> str:
        """The line beside the button that searches, as HTML."""
        return f'<p class="note">{html.escape(status.needed(desk))}</p>'

    def drop_supports(self, paths: list[str] | None, desk: Desk, value: Any, way: work.Way) -> list[Any]:
        photos, problems = work.take(paths or [])
        self._warn(problems)
        busy = desk.current is not None and desk.current.support is None  # still being marked
        if not busy:
            desk.leave(_layers(value), way)
        desk.supports += photos
        if busy or not photos:
            return [None, *self._as_it_is(desk)]
        desk.at = len(desk.supports) - len(photos)
        return [None, *self._editing(desk)]

    def use(self, desk: Desk, value: Any, way: work.Way, name: str, mask: str | None) -> list[Any]:
        with self._told():
            photo = desk.current
            if photo is None:
                raise UserError("no photo yet; drop one first")
            desk.choose(way)
            work.mark(photo, _layers(value), way, name, Path(mask) if mask else None, self.device)
        return self._as_it_is(desk)

    def go_on(self, desk: Desk, value: Any, way: work.Way) -> list[Any]:
        desk.leave(_layers(value), way)
        desk.go_on()
        return self._editing(desk)

    def choose_support(self, desk: Desk, value: Any, way: work.Way, number: int) -> list[Any]:
        desk.leave(_layers(value), way)
        desk.at = number
        return self._editing(desk)

    def remove(self, desk: Desk, way: work.Way) -> list[Any]:
        desk.choose(way)
        if desk.current is not None:
            del desk.supports[desk.at]
            desk.at = max(min(desk.at, len(desk.supports) - 1), 0)
        return self._editing(desk)

    def wipe(self, desk: Desk) -> Any:
        if desk.current is None:
            return None
        desk.current.drawn = []
        return _canvas(desk.current)

    def drop_queries(self, paths: list[str] | None, desk: Desk) -> list[Any]:
        photos, problems = work.take(paths or [])
        self._warn(problems)
        desk.queries += photos
        thumbs, there = work.thumbnails(desk.queries), bool(desk.queries)
        shown = self.gr.update(value=thumbs, visible=there)
        return [None, shown, self.gr.update(visible=there), self.needed(desk)]

    def clear(self, desk: Desk) -> list[Any]:
        desk.queries = []
        return [self.gr.update(value=[], visible=False), self.gr.update(visible=False), self.needed(desk)]

    def segment(
        self, progress: Callable[[float, str], None], desk: Desk, value: Any, way: work.Way, name: str,
        mask: str | None, model: str | None, tile: int | Literal["auto"], threshold: float, view: work.View,
    ) -> Iterator[list[Any]]:  # fmt: skip
        gr = self.gr
        with self._told():
            work.mark_what_is_new(desk, _layers(value), way, name, Path(mask) if mask else None, self.device)
            busy = [gr.update(interactive=False), gr.update(visible=True)]
            yield [*self._around(desk), *[gr.skip()] * 4, *busy]
            same = [gr.skip()] * 5
            for _ in work.segment(desk, self.predictors, model or NONE, tile or None, progress, self._doubt):
                yield [*same, *self.look(desk, threshold, view), self._results(desk), *busy]
            yield [*[gr.skip()] * 9, *self.idle()]

    def idle(self) -> list[Any]:
        return [self.gr.update(interactive=True), self.gr.update(visible=False)]

    def _results(self, desk: Desk) -> Any:
        thumbs = [(work.shrunk(f.small.overlay(), 320), "") for f in desk.found]
        return self.gr.update(value=thumbs, visible=len(thumbs) > 1, selected_index=desk.shown)

    def look(self, desk: Desk, threshold: float, view: work.View) -> list[Any]:
        no_files = self.gr.update(value=None, visible=False)  # files of before would be of another threshold
        if not desk.found:
            return [None, "", no_files]
        found = desk.found[desk.shown]
        return [work.picture(found, view, threshold), _names(work.shares(found, threshold)), no_files]

    def choose_result(self, desk: Desk, threshold: float, view: work.View, number: int) -> list[Any]:
        desk.shown = number
        return self.look(desk, threshold, view)

    def save(self, desk: Desk, threshold: float) -> Any:
        with self._told():
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            paths = work.files(desk.found, threshold, folder)
        return self.gr.update(value=[str(p) for p in paths], visible=True)


def _canvas(photo: work.Photo) -> dict[str, Any]:
    """The editor's value."""
    return {"background": photo.small, "layers": photo.drawn, "composite": None}


def _layers(value: Any) -> list[np.ndarray]:
    """(h,w,4) uint8 each, of the editor's value."""
    return list(value["layers"]) if value else []


def _names(shares: list[tuple[str, tuple[int, int, int], float]]) -> str:
    """Classes, their colours and how much of the photo they fill, as HTML."""
    parts = [
        f'<span><i style="background:rgb{colour}"></i>{html.escape(name)} {part:.1f}%</span>'
        for name, colour, part in shares
    ]
    return f'<div class="names">{"".join(parts)}</div>'
