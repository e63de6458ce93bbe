"""The format of annotations, by the content of their files and not by their names."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fss.data.formats import is_hidden, is_picture
from fss.data.prepare import cvat, via, yolo
from fss.data.prepare.common import load_json
from fss.errors import UserError

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


class File(NamedTuple):
    """A file that may hold annotations.

    Attributes:
        kind: its format; None where that is unknown or not read.
        content: of JSON in a known format.
        problem: why it cannot be read.
        advice: the way from a known format that is not read to one that is.
    """

    path: Path
    kind: Kind | None = None
    content: Any = None
    problem: str = ""
    advice: str = ""


def files_of(source: Path) -> Iterator[File]:
    """The JSON and XML files at `source`, a file or a folder, and YOLO's labels, each read once."""
    if source.is_file():
        yield _recognised(source)
        return
    for path in sorted(source.rglob("*")):
        wanted = path.suffix.lower() in (".json", ".geojson", ".xml")
        if wanted and path.is_file() and not is_hidden(path.relative_to(source)):
            yield _recognised(path)
    yield from (File(path, "YOLO") for path in yolo.label_files(source))


def _recognised(path: Path) -> File:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return _xml(path, cvat.root_tag(path))
    if suffix in (".json", ".geojson"):
        try:
            content = load_json(path)
        except UserError as error:
            return File(path, problem=str(error))
        kind = kind_of(content)
        return File(path, kind, content) if kind else File(path, advice=_json_advice(path, content))
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return File(path, advice=f"{path} is an archive; unpack it, and name the folder")
    if suffix == ".csv":
        return File(path, advice=f"{path} is a table; export the annotations as JSON")
    if suffix in (".ndjson", ".jsonl"):
        return File(path, advice=f"{path} has a JSON a line, as Labelbox writes it; export it as COCO")
    return File(path)


def _xml(path: Path, root: str) -> File:
    if root == "annotation":
        how = "whose boxes are no masks; draw outlines, or take `fss predict --box`"
        return File(path, advice=f"{path} is Pascal VOC's, {how}")
    problem = "" if root else f"{path} is damaged, or no XML; export it again"
    return File(path, "CVAT" if root == "annotations" else None, problem=problem)


def _json_advice(path: Path, content: Any) -> str:
    program = next((name for name, holds in _PROGRAMS.items() if holds <= _keys(content)), "")
    return f"{path} is {program}; export it as COCO, or as PNG masks" if program else ""


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
