"""Annotations of labelme: one JSON file an image, shapes with labels."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fss.episode import IGNORE
from fss.errors import UserError

# labelme's own names for what is no class
FIXED = {"_background_": 0, "__ignore__": IGNORE}
_DAMAGE = (LookupError, TypeError, ValueError, OSError, ArithmeticError)
_SLACK = 1.0  # pixels that a shape may reach over the image's border
_NEEDS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # points


class Shapes(NamedTuple):
    """One file's content: the image that it is for, its size (H,W), and the shapes in their order."""

    file: Path
    image: Path
    size: tuple[int, int]
    shapes: list[dict[str, Any]]

    @property
    def labels(self) -> set[str]:
        """Class names that occur."""
        return {s["label"] for s in self.shapes} - FIXED.keys()

    def draw(self, numbers: Mapping[str, int]) -> np.ndarray:
        """The label map (H,W) uint8; later shapes lie over earlier ones, as in labelme.

        Raises:
            UserError: a shape that has no area, is malformed, or reaches out of the image.
        """
        canvas = Image.new("L", self.size[::-1])
        for i, shape in enumerate(self.shapes):
            label = {**numbers, **FIXED}[shape["label"]]
            try:
                self._paint(canvas, shape, label)
            except (*_DAMAGE, SyntaxError, Image.DecompressionBombError) as error:
                raise UserError(f"{self.file}, shape {i} ({shape['label']}): {error}") from None
        return np.array(canvas)

    def _paint(self, canvas: Image.Image, shape: dict[str, Any], label: int) -> None:
        kind = shape.get("shape_type") or "polygon"
        if kind not in _NEEDS:
            raise ValueError(f"a {kind} has no area; allowed: {', '.join(_NEEDS)}")
        points = np.asarray(shape["points"], float).reshape(-1, 2)
        if len(points) < _NEEDS[kind] or not np.isfinite(points).all():
            raise ValueError(f"a {kind} needs {_NEEDS[kind]} points, got {shape['points']}")
        h, w = self.size
        over = max(-points.min(), *(points.max(0) - (w, h)))
        if over > _SLACK:
            raise ValueError(f"reaches {over:.1f} pixels out of the image ({w}x{h})")
        pen = ImageDraw.Draw(canvas)
        if kind == "polygon":
            pen.polygon([tuple(p) for p in points], fill=label, outline=label)
        elif kind == "rectangle":
            pen.rectangle([*points[:2].min(0), *points[:2].max(0)], fill=label, outline=label)
        elif kind == "circle":
            radius = float(np.hypot(*(points[1] - points[0])))
            pen.ellipse([*(points[0] - radius), *(points[0] + radius)], fill=label, outline=label)
        else:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as stamp:
                inside = np.asarray(stamp.convert("L")) > 0  # labelme writes 0 and 1, others 0 and 255
            (x, y), (right, bottom) = points[:2].round().astype(int).tolist()
            if inside.shape != (bottom - y + 1, right - x + 1):
                raise ValueError(
                    f"its mask is {inside.shape[::-1]}, its box {(right - x + 1, bottom - y + 1)}"
                )
            canvas.paste(label, (x, y), Image.fromarray(inside))


def is_one(path: Path) -> bool:
    """Whether a JSON file has the keys of labelme's; `read` tells what else is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read(path: Path, images: Path | None, problems: list[str]) -> Shapes | None:
    """The shapes of a file; None, with a line in `problems`, where it is none of labelme's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        named = content["imagePath"]
        # Written on Windows it may hold backslashes.
        below = Path(named) if "/" in named else Path(*PureWindowsPath(named).parts)
        size = (int(content["imageHeight"]), int(content["imageWidth"]))
        shapes = [dict(shape, label=shape["label"].strip()) for shape in content["shapes"]]
    except (*_DAMAGE, AttributeError, RecursionError) as error:
        problems.append(f"{path} is no annotation of labelme ({type(error).__name__}: {error})")
        return None
    return Shapes(path, images / below.name if images else path.parent / below, size, shapes)
