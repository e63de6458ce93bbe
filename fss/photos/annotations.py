"""Annotations of support photos, read and made into masks of each class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from fss.data.drawings import object_labels, read_drawing
from fss.data.photos import read_photo
from fss.episode import IGNORE
from fss.errors import UserError
from fss.scribbles.clustering import at_working_size, check_scribble
from fss.scribbles.masks import MaskMaker, Method
from fss.scribbles.strokes import points_marks

Kind = Literal["mask", "scribble", "box", "points"]
LONGEST = 1024  # pixels of a side; larger photos are made smaller before strokes and boxes become masks


@dataclass(frozen=True)
class Support:
    """A photo, and where a person says that the object is.

    Attributes:
        image: a file, or RGB (H,W,3) uint8.
        marks: by kind. mask: a file or (H,W) uint8, 0 background, one label a class, 255 ignored; of 0 and
            255 alone, 255 is the object. scribble: likewise, but 255 where nothing is drawn. box:
            (x0, y0, x1, y1), pixels from the top left, the last ones included, or a list of such. points: a
            list of (x, y, label). Files of drawings are as large as the photo.
        name: the class. Without a name, labels are the classes; with one, a mask has one label.
    """

    image: Path | str | np.ndarray
    marks: Any
    name: str | None = None
    kind: Kind = "mask"

    @property
    def title(self) -> str:
        """The support's name in messages."""
        return "an image" if isinstance(self.image, np.ndarray) else str(self.image)


class Annotated(NamedTuple):
    """A support image (H,W,3), and masks (H,W) of 0, 1 and 255 of the classes that it shows, by name."""

    image: np.ndarray
    masks: dict[str, np.ndarray]


def read_support(support: Support, by: Method, seed: int, device: torch.device, half: bool) -> Annotated:
    """Read a support, and make masks of strokes, boxes and points.

    Args:
        by: how, as of `MaskMaker`.

    Raises:
        UserError: a file is missing or damaged, sizes differ, nothing is marked, or a kind is unknown.
    """
    if support.kind not in get_args(Kind):
        raise UserError(f"support kind {support.kind!r}; allowed: {', '.join(get_args(Kind))}")
    image = as_photo(support.image)
    marks = _marks(support, image.shape[:2])
    if marks.shape != image.shape[:2]:
        (h, w), (height, width) = marks.shape, image.shape[:2]
        raise UserError(
            f"{support.title}: the {support.kind} is {w}x{h}, the image {width}x{height}; save it at the "
            "image's size"
        )
    if support.kind == "mask":
        return Annotated(image, _by_class(support, object_labels(marks, f"{support.title}: the mask")))
    if support.kind == "box":
        maker = MaskMaker("box", by)
        return _reduced(
            image, marks, lambda i, m: {support.name or "1": maker.make(i, m, seed, device, half)}
        )
    check_scribble(marks, marks.shape, IGNORE)
    maker = MaskMaker(support.kind, by)
    one = {} if support.name is None else {support.name: np.where(marks % IGNORE, 1, marks).astype(np.uint8)}
    wanted = one or {str(v): _against(marks, v) for v in np.setdiff1d(marks, (0, IGNORE))}
    parts = [
        _reduced(image, m, lambda i, m, name=name: {name: maker.make(i, m, seed, device, half)})
        for name, m in wanted.items()
    ]
    return Annotated(parts[0].image, {k: v for part in parts for k, v in part.masks.items()})


def as_photo(image: Path | str | np.ndarray) -> np.ndarray:
    """A photo (H,W,3) RGB uint8 from a file or array; `UserError` where it is none."""
    if isinstance(image, str | Path):
        return read_photo(Path(image))
    if not isinstance(image, np.ndarray):
        raise UserError(f"an image must be a file or an array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(f"an image must be (H,W,3) uint8 RGB, got {image.shape} {image.dtype}")
    return image


def _marks(support: Support, size: tuple[int, ...]) -> np.ndarray:
    """The marks that were drawn, (H,W) uint8."""
    marks = support.marks
    if support.kind == "box":
        return _boxes(marks, size, support.title)
    if support.kind == "points":
        points = [_whole(p, 3, "a point (x, y, label)", support.title) for p in _each(marks, support.title)]
        for x, y, label in points:
            if not 0 <= label < IGNORE:
                raise UserError(f"{support.title}: point {x},{y} has label {label}; allowed: 0 to 254")
        return points_marks([(x, y, label) for x, y, label in points], (size[0], size[1]))
    if isinstance(marks, str | Path):
        photo = None if isinstance(support.image, np.ndarray) else Path(support.image)
        return read_drawing(Path(marks), photo)
    if not isinstance(marks, np.ndarray):
        raise UserError(f"{support.title}: marks must be a file or an array, got {type(marks).__name__}")
    if marks.dtype not in (np.uint8, bool) or marks.ndim != 2:
        raise UserError(f"{support.title}: marks must be (H,W) uint8, got {marks.shape} {marks.dtype}")
    return marks.astype(np.uint8)


def _boxes(boxes: Sequence[Any], size: tuple[int, ...], title: str) -> np.ndarray:
    """Marks of boxes as `MaskMaker` wants them: 0 outside, 255 inside."""
    boxes = _each(boxes, title)
    every = [boxes] if len(boxes) and np.isscalar(boxes[0]) else boxes
    marks = np.zeros(size, np.uint8)
    for box in every:
        x0, y0, x1, y1 = _whole(box, 4, "a box (x0, y0, x1, y1)", title)
        if not (0 <= x0 <= x1 < size[1] and 0 <= y0 <= y1 < size[0]):
            raise UserError(
                f"{title}: box {x0},{y0},{x1},{y1}; allowed: left,top,right,bottom within 0,0 and "
                f"{size[1] - 1},{size[0] - 1}"
            )
        marks[y0 : y1 + 1, x0 : x1 + 1] = IGNORE
    if not marks.any():
        raise UserError(f"{title}: no box is given")
    return marks


def _each(marks: Any, title: str) -> list[Any]:
    if not isinstance(marks, list | tuple | np.ndarray):
        raise UserError(f"{title}: wanted a list of boxes or points, got {type(marks).__name__}")
    return list(marks)


def _whole(values: Any, count: int, what: str, title: str) -> list[int]:
    """`count` whole numbers."""
    try:
        numbers = [int(v) for v in values]
        right = len(numbers) == count and all(a == b for a, b in zip(numbers, values, strict=True))
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise UserError(f"{title}: {what} has {count} whole numbers, got {values!r}")
    return numbers


def _by_class(support: Support, labels: np.ndarray) -> dict[str, np.ndarray]:
    found = np.setdiff1d(labels, (0, IGNORE))
    if support.name is not None and len(found) > 1:
        raise UserError(
            f"{support.title}: the mask has labels {', '.join(map(str, found))}, and {support.name!r} can be "
            "one of them; save that one alone, or leave the class's name out"
        )
    if support.name is not None:
        return {support.name: np.where(labels == IGNORE, IGNORE, labels > 0).astype(np.uint8)}
    return {str(v): np.where(labels == IGNORE, IGNORE, labels == v).astype(np.uint8) for v in found}


def _against(marks: np.ndarray, label: int) -> np.ndarray:
    """Marks of one class: its own are 1, all others background."""
    return np.where(marks == IGNORE, IGNORE, marks == label).astype(np.uint8)


def _reduced(image: np.ndarray, marks: np.ndarray, make: Any) -> Annotated:
    small, fewer = at_working_size(image, marks, LONGEST)
    return Annotated(small, make(np.ascontiguousarray(small), fewer))


def named(supports: Sequence[Support]) -> list[Support]:
    """The supports, after a check that all of them name a class, or none.

    Raises:
        UserError: none at all, or some with a name and some without.
    """
    wrong = [s for s in supports if not isinstance(s, Support)]
    if wrong:
        raise UserError(f"supports must be a list of fss.Support, got {type(wrong[0]).__name__} in it")
    odd = [s for s in supports if not isinstance(s.name, str | None)]
    if odd:
        raise UserError(f"a class's name must be text, got {odd[0].name!r}")
    if not supports:
        raise UserError("no support: give at least one image with its mask, scribble, box or points")
    names = [s.name for s in supports]
    if any(n is None for n in names) and any(n is not None for n in names):
        unnamed = next(s for s in supports if s.name is None)
        raise UserError(
            f"{unnamed.title} has no class name, others have; name the class of all supports, or of none"
        )
    return [s if s.name is None else replace(s, name=s.name.strip()) for s in supports]
