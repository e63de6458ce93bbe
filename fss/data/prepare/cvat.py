"""Annotations of CVAT, "CVAT for images 1.1": one XML file for many images."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fss.data.prepare.findings import Findings
from fss.data.prepare.images import find_image, given_size, stored_size
from fss.data.prepare.shapes import Drawing, Shape, as_written, class_name
from fss.errors import UserError

_KINDS = {"box": "rectangle", "mask": "mask", "polygon": "polygon", "ellipse": "ellipse"}
_DRAWN = (*_KINDS, "polyline", "points", "cuboid", "skeleton")


def root_tag(file: Path) -> str:
    """The name of an XML file's outermost element; empty where there is none."""
    try:
        return str(next(ElementTree.iterparse(file, ("start",)))[1].tag)
    except (OSError, SyntaxError, StopIteration):
        return ""


def read(file: Path, images: Path | None, findings: Findings) -> list[Drawing]:
    """The shapes of every image that has some; what is wrong with an image goes to `findings`.

    Raises:
        UserError: the file is damaged, of a video, or without images.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, SyntaxError) as error:
        raise UserError(f"{file} is damaged ({error}); export it again") from None
    if root.find("track") is not None:
        raise UserError(f'{file} holds tracks of a video; export it from CVAT as "CVAT for images 1.1"')
    if root.find("image") is None:
        raise UserError(f"{file} is CVAT's, and names no image; export it again, with its annotations")
    found = []
    for entry in root.iterfind("image"):
        own = [e for e in entry if e.tag in _DRAWN]
        try:
            if own:
                found.append(_drawing(file, entry, own, images))
        except UserError as error:
            findings.problems.append(str(error))
    return found


def _drawing(
    file: Path, entry: ElementTree.Element, own: list[ElementTree.Element], images: Path | None
) -> Drawing:
    name = entry.get("name", "")
    where = f"{file}, image {name}"
    if not name:
        raise UserError(f"{file}: image {entry.get('id')} has no name")
    image = _in_folder(file, name, images)
    size = given_size(entry.get("height"), entry.get("width")) or stored_size(image, where)
    own = sorted(own, key=lambda e: _number(e, "z_order", where, 0))
    return Drawing(file, image, size, [_shape(e, i, where) for i, e in enumerate(own)])


def _in_folder(file: Path, name: str, images: Path | None) -> Path:
    """An image of an export, which lies in images/, with or without the task's subset, or beside the file."""
    found, beside = find_image(name, file.parent, images, str(file)), file.parent / "images"
    if found.is_file() or images or not beside.is_dir():
        return found
    inner = find_image(name, beside, None, str(file))
    every = [inner] if inner.is_file() else [p for p in beside.rglob(Path(name).name) if p.is_file()]
    return every[0] if len(every) == 1 else found


def _shape(given: ElementTree.Element, number: int, where: str) -> Shape:
    label = class_name(given.get("label"), f"{where}, {given.tag} {number}")
    place, kind = (
        f"{where.rpartition(', ')[2]}, {given.tag} {number} ({label})",
        _KINDS.get(given.tag, given.tag),
    )
    at = lambda name: _number(given, name, f"{where}, {given.tag} {number}")  # noqa: E731
    if given.tag == "mask":
        return Shape(label, kind, [[at("left"), at("top")]], place, stamp=_runs(given, f"{where}, {place}"))
    turn = _number(given, "rotation", where, 0)
    if given.tag == "box":
        return Shape(label, kind, [[at("xtl"), at("ytl")], [at("xbr"), at("ybr")]], place, turn=turn)
    if given.tag == "ellipse":
        return Shape(label, kind, [[at("cx"), at("cy")], [at("rx"), at("ry")]], place, turn=turn)
    points = [pair.split(",") for pair in given.get("points", "").split(";") if pair]
    return Shape(label, kind, points, place)


def _runs(given: ElementTree.Element, where: str) -> np.ndarray:
    """A mask's pixels (h,w) bool, from runs of background and object in turn."""
    try:
        h, w = (int(_number(given, side, where)) for side in ("height", "width"))
        runs = [int(part) for part in given.get("rle", "").split(",")]
    except UserError:
        raise
    except ValueError:
        raise UserError(f"{where}: its rle must be whole numbers with commas between them") from None
    if min(runs) < 0 or min(h, w) < 1 or sum(runs) != h * w or h * w > 2**28:
        raise UserError(f"{where}: its runs add up to {sum(runs)} pixels, its box is {w}x{h}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)


def _number(given: ElementTree.Element, name: str, where: str, default: float | None = None) -> float:
    text = given.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {as_written(text)}; wanted a number")
    return value
