"""Pictures of episodes: support with its true mask | query with its true mask | query with the prediction."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from fss.data.canvas import Canvas
from fss.data.files import read_image, read_mask
from fss.data.lists import Sample
from fss.data.plan import Draw
from fss.data.source import Source
from fss.heads import Panel
from fss.pictures.contact import contact_page
from fss.pictures.marks import draw_marks
from fss.pictures.panels import LEAST, draw_panel
from fss.pictures.tint import BLUE, RED, tint_mask

# position, class -> a support's made mask (h,w) and its marks (h,w) or None
Made = Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]


def row(panels: list[np.ndarray]) -> np.ndarray:
    """Panels (H,W,3) side by side at one height, a white line between."""
    height = max(LEAST, *(p.shape[0] for p in panels))
    sized = [cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height)) for p in panels]
    line = np.full((height, 4, 3), 255, np.uint8)
    return np.concatenate([x for p in sized for x in (p, line)][:-1], 1)


def rows(panels: list[np.ndarray], most: int = 6) -> np.ndarray:
    """Panels in rows of `most`, white where the last one has fewer."""
    return stacked([row(panels[i : i + most]) for i in range(0, len(panels), most)])


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H,W,3) below each other, white where one is narrower, a white line between."""
    width = max(p.shape[1] for p in pictures)
    wide = [
        cv2.copyMakeBorder(p, 0, 4, 0, width - p.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3)
        for p in pictures
    ]
    return np.concatenate(wide)[:-4]


def episode_row(
    source: Source, canvas: Canvas, draw: Draw, prediction: Tensor, made: Made | None = None
) -> np.ndarray:
    """Supports with their masks | query with true mask | query with prediction (S,S), as RGB (H,W,3) uint8.

    Args:
        made: masks that supports have in place of the true ones; the marks behind them are drawn, too.
    """
    pairs = [_prepared(source, canvas, i, draw.class_id) for i in (*draw.supports, draw.query)]
    query, truth = pairs[-1]
    predicted = prediction.cpu().numpy()[: truth.shape[0], : truth.shape[1]] == 1
    panels = [_masked(image, mask, RED) for image, mask in pairs]
    for n, i in enumerate(draw.supports if made else ()):
        mask, marks = made(i, draw.class_id)  # type: ignore[misc]
        panels[n] = _masked(pairs[n][0], mask == 1, RED)
        if marks is not None:
            panels[n] = draw_marks(panels[n], _enlarged(marks, cv2.INTER_NEAREST))
    return row([*panels, _masked(query, predicted, BLUE)])


def _masked(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A mask over an image that is enlarged first, so that the mask's lines stay thin."""
    larger = _enlarged(mask.astype(np.uint8), cv2.INTER_NEAREST) == 1
    return tint_mask(_enlarged(image, cv2.INTER_LINEAR), larger, colour)


def _enlarged(values: np.ndarray, how: int) -> np.ndarray:
    """An image or a map at the height of a panel, where it has less."""
    zoom = max(1.0, LEAST / values.shape[0])
    return cv2.resize(values, None, fx=zoom, fy=zoom, interpolation=how)


def _prepared(source: Source, canvas: Canvas, position: int, class_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and binary mask as the network sees them, without the canvas's padding."""
    sample = source.samples[position]
    image, mask = read_image(sample.image), read_mask(sample.mask)
    h, w = canvas.filled(*mask.shape)
    return canvas.image(image)[:h, :w], canvas.mask(mask)[:h, :w] == sample.value(class_id)


def file_name(class_name: str) -> str:
    """A class's name as part of a file's, on any file system: 60 bytes at most."""
    plain = re.sub(r'[\s/\\:*?"<>|\x00-\x1f]', "-", class_name)
    return plain.encode(errors="ignore")[:60].decode(errors="ignore")


def class_sheet(path: Path, samples: Sequence[Sample], class_id: int, most: int = 12) -> None:
    """The first `most` images of a class with its mask in red, on one page; nothing where there are none."""
    if not samples:
        return
    panels = []
    for sample in samples[:most]:
        image = cv2.resize(read_image(sample.image), (200, 150), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(read_mask(sample.mask), (200, 150), interpolation=cv2.INTER_NEAREST)
        panels.append(tint_mask(image, mask == sample.value(class_id), RED))
    panels += [np.full((150, 200, 3), 255, np.uint8)] * (-len(panels) % 6)
    page = np.concatenate([np.concatenate(panels[i : i + 6], 1) for i in range(0, len(panels), 6)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(path, page)


class EpisodePictures:
    """Writes one picture per episode into `folder`, and a contact sheet of best, median and worst.

    The picture `explain_NAME` beside an episode's own shows it with the head's panels below.

    Args:
        folder: exists; pictures of an earlier test are removed with `clear` so that two never mix.
        made: as of `episode_row`.
    """

    def __init__(self, folder: Path, source: Source, canvas: Canvas, made: Made | None = None) -> None:
        self.folder, self.source, self.canvas, self.made = folder, source, canvas, made

    def clear(self) -> None:
        """Make the folder, and empty it of pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.jpg"):
            path.unlink()

    def add(
        self, run: int, number: int, draw: Draw, prediction: Tensor, iou: float, panels: Sequence[Panel] = ()
    ) -> None:
        """Draw one episode; `prediction` (S,S) is 0 or 1 at network size, `panels` explain it."""
        name = file_name(self.source.classes[draw.class_id - 1])
        path = self.folder / f"run{run}_{number:05d}_{name}_iou{iou:05.1f}.jpg"
        episode = episode_row(self.source, self.canvas, draw, prediction, self.made)
        write_jpeg(path, episode)
        if panels:
            images = [_prepared(self.source, self.canvas, i, draw.class_id)[0] for i in draw.images]
            drawn = [
                p for panel in panels for p in draw_panel(panel, images[0], images[1:], self.canvas.size)
            ]
            write_jpeg(path.with_name(f"explain_{path.name}"), stacked([episode, rows(drawn)]))

    def contact_sheet(self) -> Path:
        """The dozen best, median and worst episodes on one page; returns its path."""
        every = sorted(self.folder.glob("run*.jpg"), key=lambda p: float(p.stem.rpartition("iou")[2]))
        path = self.folder / "contact_sheet.jpg"
        write_jpeg(path, contact_page(every, self.made is not None))
        return path


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """JPEG through memory: OpenCV's own writer fails silently on names it cannot take."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    path.write_bytes(data.tobytes())
