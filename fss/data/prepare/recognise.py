"""The format of annotations, told from what files hold and not from their names."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from fss.data.formats import is_hidden, is_picture
from fss.data.prepare import cvat, via, yolo
from fss.errors import UserError, why

Kind = Literal["labelme", "COCO", "VIA", "Supervisely", "CVAT", "YOLO"]
READS = (
    "fss reads masks (PNG, BMP or TIFF, named as their photos), JSON of labelme, VIA, Supervisely and COCO "
    "(of Roboflow and Label Studio, too), CVAT's XML for images, and YOLO's outlines (TXT with data.yaml)"
)

# Programs whose own JSON is not read, by keys that it has.
_PROGRAMS = {
    "Label Studio's own": {"data"},
    "Label Studio's JSON-MIN": {"annotator"},
    "VIA 3's": {"project", "file", "metadata"},
    "Datumaro's": {"categories", "items"},
    "V7 Darwin's": {"item", "annotations"},
    "GeoJSON": {"type", "features"},
    "COCO's results, which name no images": {"image_id", "category_id"},
}


def load_json(path: Path) -> Any:
    """A JSON file's content, in UTF-8 or UTF-16.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise UserError(f"{path} is no annotation: its lists are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({why(error)}); export it again") from None


def kind_of(content: Any) -> Kind | None:
    """The format of a JSON file's content; None where it is none that is known."""
    if via.entries_of(content) is not None:
        return "VIA"
    if not isinstance(content, dict):
        return None
    if "shapes" in content:
        return "labelme"
    if {"images", "annotations"} <= content.keys() or {"images", "categories"} <= content.keys():
        return "COCO"
    return "Supervisely" if {"objects", "size"} <= content.keys() else None


def annotations_of(source: Path) -> tuple[dict[Kind, list[Path]], list[Path]]:
    """The annotation files at `source`, a file or a folder, by format; and other JSON and XML files."""
    if source.is_file():
        files = [source]
    else:
        files = [
            p
            for p in sorted(source.rglob("*"))
            if p.suffix.lower() in (".json", ".xml") and p.is_file() and not is_hidden(p.relative_to(source))
        ]
    found: dict[Kind, list[Path]] = {}
    others = []
    for path in files:
        kind = _kind(path)
        if kind:
            found.setdefault(kind, []).append(path)
        else:
            others.append(path)
    if source.is_dir() and (labels := yolo.label_files(source)):
        found["YOLO"] = labels
    return found, others


def damage(path: Path) -> str:
    """The reason why a JSON or XML file cannot be read; empty where it can."""
    if path.suffix.lower() == ".xml":
        return "" if cvat.root_tag(path) else f"{path} is damaged, or no XML; export it again"
    try:
        load_json(path)
    except UserError as error:
        return str(error)
    return ""


def _kind(path: Path) -> Kind | None:
    if path.suffix.lower() == ".xml":
        return "CVAT" if cvat.is_one(path) else None
    try:
        return kind_of(load_json(path))
    except UserError:
        return None


def advice(path: Path) -> str:
    """The way from a known format that is not read to one that is; empty for all others."""
    suffix = path.suffix.lower()
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return f"{path} is an archive; unpack it, and name the folder"
    if suffix == ".csv":
        return f"{path} is a table; export the annotations as JSON"
    if suffix in (".ndjson", ".jsonl"):
        return f"{path} has a JSON a line, as Labelbox writes it; export it as COCO"
    if suffix == ".xml" and cvat.root_tag(path) == "annotation":
        return f"{path} is Pascal VOC's, whose boxes are no masks; draw outlines, or take `fss predict --box`"
    if suffix in (".json", ".geojson"):
        content = load_json(path)
        program = next((name for name, holds in _PROGRAMS.items() if holds <= _keys(content)), "")
        return f"{path} is {program}; export it as COCO, or as PNG masks" if program else ""
    return ""


def _keys(content: Any) -> set[str]:
    """The keys of an object, or of a list's first object."""
    first = content[0] if isinstance(content, list) and content else content
    return set(first) if isinstance(first, dict) else set()


def describe(source: Path) -> str:
    """The files of a folder by their suffixes, for messages."""
    files = (p for p in source.rglob("*") if p.is_file() and not is_hidden(p.relative_to(source)))
    suffixes = Counter(p.suffix or "no suffix" for p in files)
    return ", ".join(f"{n} {suffix}" for suffix, n in suffixes.most_common(5)) or "nothing"


def has_pictures(source: Path) -> bool:
    """Whether pictures lie below a folder."""
    return any(is_picture(p) for p in source.rglob("*"))
