"""Reading a user's own annotations, whatever program made them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fss.data.folder import NO_CLASS
from fss.data.formats import meant
from fss.data.prepare import coco, cvat, labelme, supervisely, via, yolo
from fss.data.prepare.findings import Findings
from fss.data.prepare.images import find_image
from fss.data.prepare.item import Annotated, Item
from fss.data.prepare.masks import read_masks
from fss.data.prepare.recognise import READS, File, Kind, describe, files_of, has_pictures
from fss.data.prepare.shapes import Drawing, is_class
from fss.errors import UserError

_IMAGES = ("images", "img")  # folders that say nothing of what is in them
_JSON = {"labelme": labelme.read, "VIA": via.read, "Supervisely": supervisely.read}


class _Read(NamedTuple):
    """The files of one format, and the shapes or, of COCO's, the contents that were read from them."""

    files: list[Path]
    parts: list[Any]


def read_annotated(source: Path, images: Path | None, findings: Findings) -> Annotated:
    """The annotations at `source`: a file of COCO's, labelme's, VIA's or CVAT's, or a folder.

    Args:
        images: where the images are; default: beside the annotations.
        findings: takes the format that was recognised, and a line for each annotation that cannot be used.

    Raises:
        UserError: nothing is there, it is of no known format, or of two.
    """
    if not source.exists():
        raise UserError(f"no annotations at {source}; name a file of annotations, or a folder{meant(source)}")
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images} is no folder{meant(images)}")
    formats: dict[Kind, _Read] = {}
    others = []
    for file in files_of(source):
        if file.kind is None:
            others.append(file)
            continue
        read = formats.setdefault(file.kind, _Read([], []))
        read.files.append(file.path)
        read.parts.extend(_parts(file, images, findings))
    if len(formats) > 1:
        kinds = " and ".join(f"{k}'s ({len(r.files)}, such as {r.files[0]})" for k, r in formats.items())
        raise UserError(
            f"{source} holds annotations of several formats: {kinds}; name one file, or one folder"
        )
    if not formats:
        return _masks(source, images, findings, others)
    ((kind, read),) = formats.items()
    findings.notes.append(f"recognised {kind}'s format: {len(read.files)} files, such as {read.files[0]}")
    _pass_over(others, findings)
    root = source if source.is_dir() else source.parent
    if kind == "COCO":
        return _coco(read, root, images, findings)
    return _drawings(kind, read, root, images, findings)


def _parts(file: File, images: Path | None, findings: Findings) -> list[Any]:
    """The shapes of a file, or COCO's content; a file that is malformed goes to `findings`."""
    if file.kind == "COCO":
        return [coco.checked(file.content, file.path, READS)]
    if file.kind == "YOLO":  # its files share their classes' names, and are read together
        return []
    try:
        if file.kind == "CVAT":
            return cvat.read(file.path, images, findings)
        return _JSON[str(file.kind)](file.path, file.content, images, findings)
    except UserError as error:
        findings.problems.append(str(error))
        return []


def _pass_over(others: Sequence[File], findings: Findings) -> None:
    """Name the damaged files, and those that hold no annotations."""
    findings.problems += [file.problem for file in others if file.problem]
    if rest := [file.path for file in others if not file.problem]:
        findings.notes.append(f"passed over, since no annotations: {_some(rest)}")


def _masks(source: Path, images: Path | None, findings: Findings, others: list[File]) -> Annotated:
    hint = next((line for file in others if (line := file.advice or file.problem)), "")
    if not source.is_dir():
        raise UserError(f"{hint or f'{source} is of no format that is known'}. {READS}")
    if not has_pictures(source):
        raise UserError(
            f"{source} holds {describe(source)}, and no annotations that are known. {hint or READS}"
        )
    read = read_masks(source, images, findings)
    if not read.items and images is None:
        if hint:
            raise UserError(hint)
        raise UserError(
            "\n".join([f"{source} holds {describe(source)}; no picture is the mask of another, as cat.png of "
                       f"cat.jpg. If they are masks, say with --images where the images are. {READS}",
                       *findings.problems[:5]])
        )  # fmt: skip
    findings.notes.append(
        f"recognised {len(read.items)} masks in {source}, with labels of {_listed(read.classes)}"
    )
    _pass_over([file._replace(problem="") for file in others], findings)
    return read


def _drawings(kind: Kind, read: _Read, root: Path, images: Path | None, findings: Findings) -> Annotated:
    drawings: list[Drawing] = read.parts
    names: list[str] = []
    if kind == "YOLO":
        try:
            drawings, names = yolo.read(root, read.files, images, findings)
        except UserError as error:
            raise UserError(f"{error}. {READS}") from None
    used = {label for d in drawings for label in d.labels}
    items = [_item(d, root, images, kind == "labelme", findings) for d in drawings]
    return Annotated(items, [n for n in names if is_class(n)] or sorted(used))


def _item(drawing: Drawing, root: Path, images: Path | None, by_file: bool, findings: Findings) -> Item:
    """An item named after its image, or after its own annotation file."""
    draw = lambda numbers: drawing.draw(numbers, findings)  # noqa: E731
    name = _name(drawing.file, root) if by_file else _name(drawing.image, images or root)
    return Item(name, drawing.image, drawing.file, drawing.size, draw, drawing.content)


def _coco(read: _Read, root: Path, images: Path | None, findings: Findings) -> Annotated:
    coco.need_pycocotools()
    items: list[Item] = []
    names: dict[str, None] = {}
    for file, content in zip(read.files, read.parts, strict=True):
        used = {a["category_id"] for a in content["annotations"]}
        ordered = sorted(content["categories"], key=lambda c: str(c["id"]).zfill(12))
        classes = [c for c in ordered if c["id"] in used and is_class(c["name"].strip())]
        unused = [c["name"] for c in ordered if c["id"] not in used and is_class(c["name"].strip())]
        if unused:
            findings.notes.append(
                f"{file}: categories without an annotation, which become no classes: {_listed(unused)}"
            )
        names.update(dict.fromkeys(c["name"].strip() for c in classes))
        items += _coco_items(file, content, root, ordered, images, findings)
    return Annotated(items, list(names))


def _coco_items(
    file: Path, content: dict[str, Any], root: Path, ordered: Sequence[dict[str, str]],
    images: Path | None, findings: Findings,
) -> list[Item]:  # fmt: skip
    names = [c["name"].strip() for c in ordered]
    ids = {c["id"]: i for i, c in enumerate(ordered)}

    def drawer(job: coco.Job) -> Callable[[dict[str, int]], np.ndarray]:
        def draw(numbers: dict[str, int]) -> np.ndarray:
            every = {**NO_CLASS, **numbers}
            labels = [every.get(name if is_class(name) else name.casefold(), 0) for name in names]
            regions = [r._replace(label=labels[r.label]) for r in job.regions]
            return coco.draw(regions, job.size, str(job.image), findings)

        return draw

    locate = lambda name: find_image(name, file.parent, images, str(file))  # noqa: E731
    jobs = coco.collect(content, ids, locate, Path(), findings.problems)
    return [Item(_name(j.image, images or root), j.image, file, j.size, drawer(j)) for j in jobs]


def _name(path: Path, root: Path) -> str:
    """A name for an image from its path below `root`, folders joined by underscores."""
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return "_".join(part for part in below.with_suffix("").parts if part not in _IMAGES)


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
