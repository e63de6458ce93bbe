"""Shapes that people draw on a photo, whatever the program, and the label map that they make."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fss.data.folder import NO_CLASS
from fss.data.prepare.findings import Findings, Nothing
from fss.errors import UserError

POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "ellipse": 2, "mask": 1}  # points that each kind needs
_SLACK = 1.0  # pixels that a shape may reach over the image's border
_CUT = 0.05  # share of a side up to which a shape is cut off at the border where that is asked for


Cutter = Callable[[float], None] | None


class Shape(NamedTuple):
    """One shape as a program wrote it.

    Attributes:
        label: the class's name.
        kind: of `POINTS`; any other has no area.
        points: (x, y) each. rectangle: two corners, or all four of a turned one; circle: its centre and a
            point of its border; ellipse: its centre and its radii; mask: the top left of its stamp.
        where: for messages.
        holes: polygons that are cut out.
        stamp: (h,w) bool, of a mask.
        turn: of an ellipse or of a rectangle of two corners, degrees clockwise.
    """

    label: str
    kind: str
    points: Any
    where: str
    holes: Sequence[Any] = ()
    stamp: np.ndarray | None = None
    turn: float = 0.0


class Drawing(NamedTuple):
    """The shapes of one image in the order in which they were drawn.

    Attributes:
        file: the file that holds them.
        size: (H,W) that they are for.
        content: the image's own file, where it lies in the annotation and nowhere else.
    """

    file: Path
    image: Path
    size: tuple[int, int]
    shapes: list[Shape]
    content: bytes | None = None

    @property
    def labels(self) -> set[str]:
        """Class names that occur."""
        return {s.label for s in self.shapes if is_class(s.label)}

    def draw(self, numbers: Mapping[str, int], findings: Findings) -> np.ndarray:
        """The label map (H,W) uint8; later shapes lie over earlier ones.

        Raises:
            UserError: a shape that has no area, is malformed, or reaches out of the image, where `findings`
                does not let it be left out alone.
        """
        canvas = Image.new("L", self.size[::-1])
        for shape in self.shapes:
            label = numbers[shape.label] if is_class(shape.label) else NO_CLASS[shape.label.casefold()]
            try:
                _paint(canvas, shape, label, findings.cutter(f"{self.file}, {shape.where}"))
            except Nothing:
                findings.empty(f"{self.file}, {shape.where}")
            except (UserError, SyntaxError, Image.DecompressionBombError) as error:
                findings.unusable(f"{self.file}, {shape.where}: {error}")
        return np.array(canvas)


def is_class(name: str) -> bool:
    """Whether a label is the name of a class, and not of the background or of what is to be ignored."""
    return name.casefold() not in NO_CLASS


def as_written(value: object) -> str:
    """A value of a JSON or XML file for messages, as it stands there."""
    if value is None:
        return "missing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."


def class_name(value: object, where: str) -> str:
    """A class's name from whatever a program wrote for it; `UserError` where it is none."""
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not name or not name.isprintable():
        found = "no label" if value is None else f"the label {as_written(value)}"
        raise UserError(f'{where} has {found}; wanted a class\'s name, such as "cat"')
    return name


def corners(points: Any, need: int, kind: str) -> np.ndarray:
    """Points (N,2), of pairs or of one flat list.

    Raises:
        Nothing: there is no point.
        UserError: too few, or no pairs of numbers.
    """
    wanted = "wanted pairs of numbers, such as [[10, 5], [30, 20]]"
    try:
        found = np.asarray([] if points is None else points, float)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"points {as_written(points)}; {wanted}") from None
    if found.size == 0:
        raise Nothing
    if found.ndim == 1 and found.size % 2 == 0:
        found = found.reshape(-1, 2)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise UserError(f"points {as_written(points)}; {wanted}")
    if len(found) < need:
        raise UserError(f"a {kind} needs {need} points or more, got {len(found)}: {as_written(points)}")
    return found


def inside(points: np.ndarray, size: tuple[int, int], cut: Cutter) -> np.ndarray:
    """Points (N,2) that lie within an image (H,W), or hardly over its border.

    Args:
        cut: takes the pixels that points reach over the border, and lets those be moved to it that reach over
            it by a few percent of the side; None: no point may.

    Raises:
        UserError: they reach further.
    """
    h, w = size
    if points.max() <= 1 < min(h, w) and (points % 1).any():
        raise UserError("all its points lie within one pixel, as shares of the sides would; wanted pixels")
    over = max(-points.min(), *(points.max(0) - (w, h)))
    if over <= _SLACK:
        return points
    if cut and over <= _CUT * max(size):
        cut(float(over))
        return np.clip(points, 0, (w, h))
    raise UserError(f"reaches {over:.1f} pixels out of the image ({w}x{h})")


def _paint(canvas: Image.Image, shape: Shape, label: int, cut: Cutter) -> None:
    if shape.kind == "box":
        raise UserError(
            "it is a box, which is no mask; draw its outline, or export outlines in place of boxes"
        )
    if shape.kind not in POINTS:
        raise UserError(f"a {shape.kind} has no area; allowed: {', '.join(POINTS)}")
    points = corners(shape.points, POINTS[shape.kind], shape.kind)
    size = (canvas.height, canvas.width)
    if shape.kind == "mask":
        return _stamp(canvas, shape, points, label)
    pen = ImageDraw.Draw(canvas)
    if shape.kind in ("circle", "ellipse"):
        centre, other = points[:2]
        radii = np.full(2, np.hypot(*(other - centre))) if shape.kind == "circle" else other
        inside(points[:2] if shape.kind == "circle" else centre[None], size, cut)
        if not 0 <= radii.min() <= radii.max() <= 2 * max(size):
            raise UserError(f"radii {radii.tolist()}; allowed: 0 to twice the image's longest side")
        if shape.turn:
            pen.polygon([tuple(p) for p in _ellipse(centre, radii, shape.turn)], fill=label, outline=label)
        else:
            pen.ellipse([*(centre - radii), *(centre + radii)], fill=label, outline=label)
        return None
    if shape.kind == "rectangle" and len(points) == 2 and shape.turn:
        points = _turned(points, shape.turn)
    points = inside(points, size, cut)
    if shape.kind == "rectangle" and len(points) == 2:
        pen.rectangle([*points.min(0), *points.max(0)], fill=label, outline=label)
    elif shape.kind == "rectangle" and len(points) != 4:
        raise UserError(f"a rectangle has 2 corners, or 4, got {len(points)}")
    elif shape.holes:
        _with_holes(canvas, points, shape.holes, label)
    else:
        pen.polygon([tuple(p) for p in points], fill=label, outline=label)
    return None


def _with_holes(canvas: Image.Image, points: np.ndarray, holes: Sequence[Any], label: int) -> None:
    region = Image.new("1", canvas.size)
    pen = ImageDraw.Draw(region)
    pen.polygon([tuple(p) for p in points], fill=1, outline=1)
    for hole in holes:
        pen.polygon([tuple(p) for p in corners(hole, 3, "hole")], fill=0, outline=0)
    canvas.paste(label, (0, 0), region)


def _stamp(canvas: Image.Image, shape: Shape, points: np.ndarray, label: int) -> None:
    if shape.stamp is None:
        raise UserError("a mask without its pixels")
    (x, y), (h, w) = points[0].round().astype(int).tolist(), shape.stamp.shape
    if len(points) > 1:  # labelme says the bottom right as well
        right, bottom = points[1].round().astype(int).tolist()
        if (w, h) != (right - x + 1, bottom - y + 1):
            raise UserError(f"its mask is {(w, h)}, its box {(right - x + 1, bottom - y + 1)}")
    if not shape.stamp.any():
        raise Nothing
    over = max(-x, -y, x + w - canvas.width, y + h - canvas.height)
    if over > _SLACK:
        raise UserError(f"reaches {over} pixels out of the image ({canvas.width}x{canvas.height})")
    canvas.paste(label, (x, y), Image.fromarray(shape.stamp))


def _ellipse(centre: np.ndarray, radii: np.ndarray, turn: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii @ _rotation(turn)


def _turned(points: np.ndarray, turn: float) -> np.ndarray:
    """The four corners of a rectangle that is turned about its centre."""
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    centre = points.mean(0)
    return centre + (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - centre) @ _rotation(turn)


def _rotation(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)  # clockwise on the screen, where y points down
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
