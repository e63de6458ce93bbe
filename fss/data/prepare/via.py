"""Annotations of the VGG Image Annotator (VIA 1 and 2): one JSON file for many images."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fss.data.prepare.findings import Findings
from fss.data.prepare.images import find_image, stored_size
from fss.data.prepare.shapes import Drawing, Shape, as_written, class_name
from fss.errors import UserError

_USUAL = ("class", "label", "name", "type", "category", "object")  # attributes that hold a class's name
_KINDS = {"rect": "rectangle", "polyline": "line"}


def entries_of(content: Any) -> list[Any] | None:
    """The images' entries in a project or an export; None where the content is none of VIA's."""
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    if not isinstance(content, dict) or not content:
        return None
    entries = list(content.values())
    return (
        entries if all(isinstance(e, dict) and {"filename", "regions"} <= e.keys() for e in entries) else None
    )


def read(file: Path, content: Any, images: Path | None, findings: Findings) -> list[Drawing]:
    """The regions of every image that has some; what is wrong with an image goes to `findings`."""
    entries = [e for e in entries_of(content) or [] if e["regions"]]
    attribute = _attribute(file, entries)
    found = []
    for entry in entries:
        try:
            where = f"{file}, {entry['filename']}"
            shapes = [_shape(r, attribute, i, where) for i, r in enumerate(_regions(entry))]
            image = find_image(str(entry["filename"]), file.parent, images, str(file))
            found.append(Drawing(file, image, stored_size(image, where), shapes))
        except UserError as error:
            findings.problems.append(str(error))
    return found


def _regions(entry: Mapping[str, Any]) -> Iterator[Any]:
    regions = entry["regions"]  # a list, in VIA 1 an object by number
    yield from regions.values() if isinstance(regions, dict) else regions


def _attribute(file: Path, entries: list[Any]) -> str:
    """The attribute of regions that names their class."""
    used: dict[str, None] = {}
    for entry in entries:
        for region in _regions(entry):
            given = region.get("region_attributes") if isinstance(region, dict) else None
            used.update(dict.fromkeys(given if isinstance(given, dict) else ()))
    usual = [name for name in used if name.casefold() in _USUAL]
    best = usual or list(used)
    if len(best) != 1:
        listed = f"they have {', '.join(used)}" if used else "they have none"
        raise UserError(
            f"{file}: regions need one attribute that names their class, {listed}; name it one of "
            f"{', '.join(_USUAL)}"
        )
    return best[0]


def _shape(region: Any, attribute: str, number: int, where: str) -> Shape:
    given = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(given, dict):
        raise UserError(f"{where}, region {number} has no shape_attributes")
    attributes = region.get("region_attributes")
    value = attributes.get(attribute) if isinstance(attributes, dict) else None
    if isinstance(value, dict):  # a check box: {"cat": true}
        value = next((name for name, on in value.items() if on), None)
    label = class_name(value, f"{where}, region {number}, attribute {attribute!r}")
    place, kind = f"{where.rpartition(', ')[2]}, region {number} ({label})", str(given.get("name"))
    points = _points(given, kind, f"{where}, region {number}")
    turn = given.get("theta") or 0.0
    if not isinstance(turn, int | float):
        raise UserError(f"{where}, region {number}: theta is {as_written(turn)}; wanted a number")
    return Shape(label, _KINDS.get(kind, kind), points, place, turn=float(turn) * 57.29577951308232)


def _points(given: Mapping[str, Any], kind: str, where: str) -> list[Any]:
    try:
        if kind in ("polygon", "polyline"):
            return [list(p) for p in zip(given["all_points_x"], given["all_points_y"], strict=True)]
        if kind == "rect":
            x, y = float(given["x"]), float(given["y"])
            return [[x, y], [x + float(given["width"]), y + float(given["height"])]]
        if kind == "circle":
            x, y = float(given["cx"]), float(given["cy"])
            return [[x, y], [x + float(given["r"]), y]]
        if kind == "ellipse":
            return [[given["cx"], given["cy"]], [given["rx"], given["ry"]]]
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{where}: a {kind} without the numbers that it needs") from None
    return []
