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
from fss.demo.desk import Desk
from fss.demo.models import NONE, Models, choices
from fss.errors import UserError

HINTS = {
    "paint": "Cover the object with red.",
    "scribble": "A red line or two on the object; blue (palette) on what is not. The rest is worked out.",
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

    def _editing(self, desk: Desk, keep: bool = False) -> list[Any]:
        """The editor with the current photo, how it is marked, and all photos below.

        Args:
            keep: leave the editor as it is.
        """
        gr, photo = self.gr, desk.current
        thumbs = work.thumbnails(desk.supports, desk.classes)
        strip = gr.update(value=thumbs, visible=bool(thumbs), selected_index=desk.at if thumbs else None)
        if keep:
            return [gr.skip(), gr.skip(), gr.skip(), gr.skip(), strip]
        if photo is None:
            return [None, gr.skip(), gr.skip(), None, strip]
        name = photo.support.name if photo.support else gr.skip()
        return [_canvas(photo), photo.way, name, None, strip]

    def drop_supports(self, paths: list[str] | None, desk: Desk) -> list[Any]:
        photos, problems = work.take(paths or [])
        self._warn(problems)
        before = desk.current
        desk.supports += photos
        busy = before is not None and before.support is None  # still being marked
        if photos and not busy:
            desk.at = len(desk.supports) - len(photos)
        return [None, *self._editing(desk, keep=busy or not photos)]

    def use(self, desk: Desk, value: Any, way: work.Way, name: str, mask: str | None) -> list[Any]:
        with self._told():
            photo = desk.current
            if photo is None:
                raise UserError("no photo yet; drop one first")
            work.mark(photo, _layers(value), way, name, Path(mask) if mask else None, self.device)
        left = [n for n, p in enumerate(desk.supports) if p.support is None]
        desk.at = left[0] if left else desk.at
        return self._editing(desk, keep=not left)

    def choose_support(self, desk: Desk, value: Any, number: int) -> list[Any]:
        if desk.current is not None:
            desk.current.drawn = _layers(value)  # unused marks are not lost
        desk.at = number
        return self._editing(desk)

    def remove(self, desk: Desk) -> list[Any]:
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
        return [None, self.gr.update(value=thumbs, visible=there), self.gr.update(visible=there)]

    def clear(self, desk: Desk) -> list[Any]:
        desk.queries = []
        return [self.gr.update(value=[], visible=False), self.gr.update(visible=False)]

    def segment(
        self, progress: Callable[[float, str], None], desk: Desk, value: Any, way: work.Way, name: str,
        mask: str | None, model: str | None, tile: int | Literal["auto"], threshold: float, view: work.View,
    ) -> Iterator[list[Any]]:  # fmt: skip
        gr = self.gr
        with self._told():
            work.mark_what_is_new(desk, _layers(value), way, name, Path(mask) if mask else None, self.device)
            strip = self._editing(desk, keep=True)[-1]
            skip, busy = gr.skip(), [gr.update(interactive=False), gr.update(visible=True)]
            yield [strip, skip, skip, skip, skip, *busy]
            for _ in work.segment(desk, self.predictors, model or NONE, tile or None, progress, self._doubt):
                yield [skip, *self.look(desk, threshold, view), self._results(desk), *busy]
            yield [skip, skip, skip, skip, skip, *self.idle()]

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
