"""Annotations in labelme's format: one JSON file an image, shapes with labels."""

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fss.data.photos import photo_size
from fss.data.prepare.findings import Findings
from fss.data.prepare.images import find_image, given_size, stored_size
from fss.data.prepare.shapes import Drawing, Shape, as_written, class_name
from fss.errors import UserError

_TURNED = ("rotation", "oriented_rectangle")  # rectangles with all four corners


def read(file: Path, content: Mapping[str, Any], images: Path | None, findings: Findings) -> list[Drawing]:
    """The shapes of a file, and the photo within it where there is no other.

    Raises:
        UserError: names the part that is malformed.
    """
    named, shapes = content.get("imagePath"), content.get("shapes")
    if not isinstance(named, str) or not named.strip():
        raise UserError(
            f'{file}: imagePath is {as_written(named)}; wanted the image\'s file, such as "cat.jpg"'
        )
    if not isinstance(shapes, list):
        raise UserError(f"{file}: shapes is {as_written(shapes)}; wanted a list of shapes")
    image, inner = find_image(named, file.parent, images, str(file)), None
    if not image.is_file() and content.get("imageData"):
        inner = _embedded(content["imageData"], file)
        image = image.with_suffix(".png") if inner[:4] == b"\x89PNG" else image.with_suffix(".jpg")
    size = given_size(content.get("imageHeight"), content.get("imageWidth"))
    if size is None:
        size = (
            photo_size(io.BytesIO(inner))[0]
            if inner
            else stored_size(image, f"{file} (imageHeight, imageWidth)")
        )
    return [Drawing(file, image, size, [_shape(s, file, i) for i, s in enumerate(shapes)], inner)]


def _shape(given: Any, file: Path, number: int) -> Shape:
    if not isinstance(given, dict):
        raise UserError(
            f"{file}, shape {number} is {as_written(given)}; wanted an object with label and points"
        )
    label = class_name(given.get("label"), f"{file}, shape {number}")
    where = f"shape {number} ({label})"
    kind = given.get("shape_type") or "polygon"
    stamp = _stamp(given, file, where) if kind == "mask" else None
    return Shape(label, "polygon" if kind in _TURNED else str(kind), given.get("points"), where, stamp=stamp)


def _stamp(given: Mapping[str, Any], file: Path, where: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(base64.b64decode(given["mask"], validate=True))) as stamp:
            return np.asarray(stamp.convert("L")) > 0  # labelme writes 0 and 1, others 0 and 255
    except (LookupError, TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        raise UserError(f"{file}, {where}: its mask is no picture; wanted a PNG in base64") from None


def _embedded(data: Any, file: Path) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise UserError(f"{file}: its photo lies nowhere, and imageData is no base64") from None
