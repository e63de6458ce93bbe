"""The contact sheet of a test: its best, median and worst episodes on one page, with a legend."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fss.data.files import read_image
from fss.pictures.marks import CYAN, YELLOW
from fss.pictures.tint import BLUE, RED, tint_mask

_COLUMNS, _MOST = 3, 12  # pictures in a row, in a block
_WIDTH, _HEIGHT = 600, 180  # of a picture at most, the width with its margin; pixels
_TITLE, _BELOW, _MARGIN = 30, 28, 8  # above a block, below a picture, right of a picture; pixels
_PANELS = (  # in the order of `episode_row`
    (RED, "supports with their masks"),
    (RED, "query with its true mask"),
    (BLUE, "query with the prediction"),
)


def contact_page(paths: Sequence[Path], marked: bool = False) -> np.ndarray:
    """The dozen best, median and worst of some pictures, or all where they are no more, (H,W,3) RGB uint8.

    Args:
        paths: pictures of `episode_row`, named as `EpisodePictures` does, the worst first.
        marked: whether marks are drawn on the supports; the legend then tells them, too.
    """
    middle = max(0, len(paths) // 2 - _MOST // 2)
    blocks = [("best", paths[::-1][:_MOST]), ("median", paths[middle:][:_MOST]), ("worst", paths[:_MOST])]
    if len(paths) <= 3 * _MOST:
        blocks = [("all, the best first", paths[::-1])]
    parts = [_legend(marked)]
    for title, some in blocks:
        parts += [_titled(title), *(_line(some[i : i + _COLUMNS]) for i in range(0, len(some), _COLUMNS))]
    return np.concatenate(parts, 0)


def _legend(marked: bool) -> np.ndarray:
    """What stands in an episode's picture, from left to right, and the colours of masks and marks."""
    out = _blank(44)
    _text(out, "Each picture, from left to right:", (8, 28), 0.55)
    grey = np.full((24, 40, 3), 128, np.uint8)
    inside = np.zeros(grey.shape[:2], bool)
    inside[5:-5, 7:-7] = True
    entries = [(tint_mask(grey, inside, colour), said) for colour, said in _PANELS]
    if marked:
        lines = grey.copy()
        lines[8:10, 6:-6], lines[14:16, 6:-6] = YELLOW, CYAN
        entries.append((lines, "marks: yellow object, cyan background"))
    for n, (swatch, said) in enumerate(entries):
        left = 330 + 330 * n
        out[10:34, left : left + 40] = swatch
        _text(out, said, (left + 50, 28), 0.55)
    return out


def _titled(title: str) -> np.ndarray:
    out = _blank(_TITLE)
    _text(out, title, (8, 22), 0.7)
    return out


def _line(paths: Sequence[Path]) -> np.ndarray:
    """Pictures side by side, each with its class and IoU below."""
    pictures = [_fitted(read_image(path)) for path in paths]
    out = _blank(max(p.shape[0] for p in pictures) + _BELOW)
    for n, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        height, width = picture.shape[:2]
        left = n * _WIDTH + _MARGIN // 2
        out[:height, left : left + width] = picture
        name, _, iou = path.stem.split("_", 2)[2].rpartition("_iou")
        _text(out, f"{name.replace('_', ' ')}  IoU {float(iou):.1f} %", (left, height + 16), 0.45)
    return out


def _fitted(image: np.ndarray) -> np.ndarray:
    """A picture as large as its place allows."""
    scale = min((_WIDTH - _MARGIN) / image.shape[1], _HEIGHT / image.shape[0])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _blank(height: int) -> np.ndarray:
    return np.full((height, _COLUMNS * _WIDTH, 3), 255, np.uint8)


def _text(image: np.ndarray, text: str, place: tuple[int, int], scale: float) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
