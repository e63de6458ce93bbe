"""Annotations of Supervisely: `ann/NAME.jpg.json` for `img/NAME.jpg`."""

import base64
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fss.data.prepare.findings import Findings
from fss.data.prepare.images import find_image, given_size, stored_size
from fss.data.prepare.shapes import Drawing, Shape, as_written, class_name
from fss.errors import UserError

_KINDS = {"bitmap": "mask"}
_MOST = 2**28  # bytes of a bitmap that is unpacked


def read(file: Path, content: Mapping[str, Any], images: Path | None, findings: Findings) -> list[Drawing]:
    """The objects of a file; `UserError` names the part that is malformed."""
    beside = file.parent.parent / "img" if file.parent.name == "ann" else file.parent
    image = find_image(file.name.removesuffix(".json"), beside, images, str(file))
    size = content["size"] if isinstance(content["size"], dict) else {}
    given = given_size(size.get("height"), size.get("width")) or stored_size(image, f"{file} (size)")
    objects = content["objects"]
    if not isinstance(objects, list):
        raise UserError(f"{file}: objects is {as_written(objects)}; wanted a list")
    return [Drawing(file, image, given, [_shape(o, file, i) for i, o in enumerate(objects)])]


def _shape(given: Any, file: Path, number: int) -> Shape:
    if not isinstance(given, dict):
        raise UserError(f"{file}, object {number} is {as_written(given)}; wanted an object with classTitle")
    label = class_name(given.get("classTitle"), f"{file}, object {number}")
    where, kind = f"object {number} ({label})", str(given.get("geometryType", "polygon"))
    if kind == "bitmap":
        stamp, origin = _bitmap(given.get("bitmap"), f"{file}, {where}")
        return Shape(label, "mask", [origin], where, stamp=stamp)
    points = given.get("points")
    if not isinstance(points, dict):
        raise UserError(f"{file}, {where} has no points")
    holes = points.get("interior") or []
    return Shape(label, _KINDS.get(kind, kind), points.get("exterior"), where, holes=holes)


def _bitmap(given: Any, where: str) -> tuple[np.ndarray, Any]:
    """A bitmap's pixels (h,w) bool, and its top left (x, y)."""
    try:
        packed = base64.b64decode(given["data"], validate=True)
        png = zlib.decompressobj().decompress(packed, _MOST)
        with Image.open(io.BytesIO(png)) as stamp:
            has_alpha = "A" in stamp.getbands() or "transparency" in stamp.info
            pixels = stamp.convert("RGBA").getchannel("A") if has_alpha else stamp.convert("L")
            return np.asarray(pixels) > 0, given["origin"]
    except (
        LookupError,
        TypeError,
        ValueError,
        OSError,
        SyntaxError,
        zlib.error,
        Image.DecompressionBombError,
    ):
        raise UserError(
            f"{where}: its bitmap cannot be read; wanted a packed PNG in base64, and origin"
        ) from None
