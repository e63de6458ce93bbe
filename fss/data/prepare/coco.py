"""COCO 2014: masks and lists from the instance annotations, through pycocotools.

The rule: an object's region gets its category's label, 1..80 in order of category id. Crowd regions are
regions of their category like any other. Where objects overlap the smaller one lies on top (by the area
of its region, then by the order in the file). Images without any annotation are left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fss.data.coco import COCO_CLASSES
from fss.data.prepare.common import Prepared, fetch_zip, load_json, tally, write_list, write_mask
from fss.data.prepare.findings import Findings, Nothing
from fss.data.prepare.images import find_image, given_size, stored_size
from fss.data.prepare.shapes import Cutter, as_written, corners, inside
from fss.errors import UserError

SPLITS = {"train": "train2014", "val": "val2014"}
MASKS = "SegmentationClass"
_URLS = {
    "train2014": "http://images.cocodataset.org/zips/train2014.zip",
    "val2014": "http://images.cocodataset.org/zips/val2014.zip",
    "annotations": "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
}
_GET = "Put COCO 2014 there as train2014/, val2014/ and annotations/instances_{train,val}2014.json"


class Region(NamedTuple):
    """One annotated object.

    Attributes:
        outline: COCO's `segmentation`: polygons, RLE, or compressed RLE.
        number: the annotation's id, for messages.
        empty: whether its box, where it has one, has no area.
    """

    label: int
    outline: Any
    number: int
    empty: bool = False


class Job(NamedTuple):
    """One image to make a mask for: files, size (H,W), objects."""

    name: str
    image: Path
    mask: Path
    size: tuple[int, int]
    regions: list[Region]


def prepare_coco(root: Path, lists: Path, download: bool = False) -> Prepared:
    """Write `SegmentationClass/SPLIT/NAME.png` into the root, and lists of both splits.

    Args:
        root: holds train2014/, val2014/ and annotations/, or will with `download`.
        lists: folder for train.txt and val.txt (40,137 images); images that could not be made are left out.

    Raises:
        UserError: an archive or one of its parts is missing or no COCO annotation, or pycocotools is
            not installed.
    """
    need_pycocotools()
    if download:
        root.mkdir(parents=True, exist_ok=True)
        for part, url in _URLS.items():
            fetch_zip(url, root, part)
    found = Prepared(root)
    for split, folder in SPLITS.items():
        if not (root / folder).is_dir():
            raise UserError(f"no {folder}/ in {root}. {_GET}, or have it fetched with --download")
        content = read_annotations(root / "annotations" / f"instances_{folder}.json", _GET)
        labels = {
            c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: int(c["id"])), 1)
        }
        names = tuple(c["name"] for c in sorted(content["categories"], key=lambda c: int(c["id"])))
        if names != COCO_CLASSES:
            raise UserError(f"{folder}: the categories are not COCO's 80, but {len(names)}: {names[:3]} ...")
        locate = lambda name, folder=root / folder: find_image(name, folder, folder, "images")  # noqa: E731
        jobs = list(collect(content, labels, locate, root / MASKS / folder, found.problems))
        good = draw_all(found, jobs, f"{folder} masks")
        lines = (f"{folder}/{j.image.name} {MASKS}/{folder}/{j.mask.name}" for j in jobs if j.name in good)
        write_list(found, lists / f"{split}.txt", lines)
    return found


def need_pycocotools() -> None:
    """`UserError` where pycocotools is missing."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise UserError("COCO's annotations need pycocotools: pip install pycocotools") from None


def read_annotations(path: Path, hint: str) -> dict[str, Any]:
    """The content of a COCO instance file; `UserError`, which ends with `hint`, as `checked`."""
    try:
        content = load_json(path)
    except UserError as error:
        raise UserError(f"{error}. {hint}") from None
    return checked(content, path, hint)


def checked(content: Any, path: Path, hint: str) -> dict[str, Any]:
    """A JSON file's content as that of a COCO instance file.

    Raises:
        UserError: it has no images, annotations and categories that can be used, or one of them twice.
    """
    if _is_panoptic(content):
        raise UserError(f"annotations {path} are COCO's panoptic ones; wanted instances, with segmentation")
    for part, rules in _RULES.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"annotations {path}: {part} must be a list of objects. {hint}")
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(f"annotations {path}: {part}[{i}] is {as_written(entry)}; wanted an object")
            for key, (fits, wanted) in rules.items():
                if wanted == _ID[1]:
                    entry[key] = _whole(entry.get(key))
                if not fits(entry.get(key)):
                    value = as_written(entry.get(key))
                    raise UserError(f"annotations {path}: {part}[{i}]: {key} is {value}; wanted {wanted}")
    for part, key in (
        ("images", "id"),
        ("images", "file_name"),
        ("categories", "id"),
        ("categories", "name"),
    ):
        counted = Counter(str(entry[key]).strip() for entry in content[part])
        twice = [value for value, count in counted.items() if count > 1]
        if twice:
            raise UserError(f"annotations {path}: {part} with {key} {twice[0][:80]!r} stand in it twice")
    return dict(content)


def _is_panoptic(content: Any) -> bool:
    entries = content.get("annotations") if isinstance(content, dict) else None
    return isinstance(entries, list) and any(isinstance(e, dict) and "segments_info" in e for e in entries)


def _whole(value: Any) -> Any:
    """A number that a program wrote as 7.0 or "7", so that it finds what was written as 7."""
    is_number = isinstance(value, float) and value.is_integer()
    is_digits = isinstance(value, str) and value.isdecimal() and value == str(int(value))
    return int(value) if is_number or is_digits else value


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


_ID = (_is_id, "a whole number or text")
_RULES: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {"id": _ID, "file_name": (_is_text, 'the image\'s file, such as "cat.jpg"')},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID},
    "categories": {"id": _ID, "name": (_is_text, 'the class\'s name, such as "cat"')},
}


_MEND = "mend the id, or take the annotation out of the file"


def collect(
    content: Mapping[str, Any], labels: Mapping[Any, int], locate: Callable[[str], Path], masks: Path,
    problems: list[str],
) -> Iterator[Job]:  # fmt: skip
    """One job for each image with annotations; what fits nothing goes to `problems`.

    Args:
        locate: the image's file from its name; may raise `UserError`.
    """
    regions: dict[Any, list[Region]] = {entry["id"]: [] for entry in content["images"]}
    for a in content["annotations"]:
        if a["category_id"] not in labels:
            problems.append(
                f"annotation {a['id']}: no category has the id {as_written(a['category_id'])}; {_MEND}"
            )
        elif a["image_id"] not in regions:
            problems.append(f"annotation {a['id']}: no image has the id {as_written(a['image_id'])}; {_MEND}")
        else:
            region = Region(labels[a["category_id"]], a.get("segmentation"), a["id"], not _has_box(a))
            regions[a["image_id"]].append(region)
    for entry in content["images"]:
        if own := regions[entry["id"]]:
            try:
                path = locate(entry["file_name"])
                size = given_size(entry.get("height"), entry.get("width"))
                size = size or stored_size(path, f"image {entry['file_name']}")
            except UserError as error:
                problems.append(str(error))
                continue
            yield Job(path.stem, path, masks / f"{path.stem}.png", size, own)


def _has_box(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation's box has an area."""
    box = annotation.get("bbox")
    try:
        return isinstance(box, list) and float(box[2]) > 0 and float(box[3]) > 0
    except (LookupError, TypeError, ValueError):
        return False


def draw_all(found: Prepared, jobs: list[Job], title: str) -> set[str]:
    """Make all masks, in as many processes as there are cores; returns the names that have one."""
    # Drawing holds Python's lock, so threads would not help; spawn, since forking a process with torch's
    # threads in it can hang.
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_leave_interrupts)
    try:
        return tally(found, [j.name for j in jobs], pool.map(make, jobs, chunksize=16), title)
    except BrokenProcessPool:
        raise UserError(
            "a process that draws masks died (out of memory, or killed); the same command goes on"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process alone takes Ctrl-C


def make(job: Job) -> str | None:
    """One image's mask; see `write_mask`."""
    drawn = lambda: draw(job.regions, job.size, str(job.image))  # noqa: E731
    return write_mask(job.mask, job.image, drawn, job.size)


def draw(
    regions: list[Region], size: tuple[int, int], name: str, findings: Findings | None = None
) -> np.ndarray:
    """The label map (H,W) uint8 of an image's objects, small ones on top.

    Args:
        findings: says what becomes of an outline that cannot be drawn.

    Raises:
        UserError: an outline that is malformed or reaches out of the image.
    """
    from pycocotools import mask as api

    findings = findings or Findings()
    coded = []
    for region in regions:
        where = f"{name}, annotation {region.number}"
        try:
            coded.append((_encode(region, size, findings.cutter(where)), region.label))
        except Nothing:
            findings.empty(where)
        except UserError as error:
            findings.unusable(f"{where}: {error}")
    labels = np.zeros(size, np.uint8)
    for code, label in sorted(coded, key=lambda c: -float(api.area(c[0]))):
        labels[api.decode(code) > 0] = label
    return labels


def _encode(region: Region, size: tuple[int, int], cut: Cutter) -> dict[str, Any]:
    """A region as compressed RLE, after every check that pycocotools leaves out."""
    from pycocotools import mask as api

    outline, (h, w) = region.outline, size
    if isinstance(outline, dict):
        return dict(api.frPyObjects({"size": [h, w], "counts": _runs(outline, size)}, h, w))
    if (not outline and outline != []) or (outline == [] and not region.empty):
        raise UserError(
            f"its segmentation is {as_written(outline)}, and a box or keypoints alone are no mask; draw its "
            "outline"
        )
    if not isinstance(outline, list):
        raise UserError(
            f"its segmentation is {as_written(outline)}; wanted a list of polygons, or a run-length code"
        )
    if outline and not any(isinstance(part, list) for part in outline):
        outline = [outline]  # one polygon that is not in a list of its own
    polygons = []
    for polygon in outline:
        try:
            polygons.append(inside(corners(polygon, 3, "polygon"), size, cut).ravel().tolist())
        except Nothing:
            continue
    if not polygons:
        raise Nothing
    return dict(api.merge(api.frPyObjects(polygons, h, w)))


def _runs(outline: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
    """The lengths of the runs of a run-length code; `UserError` where they are not those of the image."""
    (h, w), counts = size, outline.get("counts")
    if outline.get("size") != [h, w]:
        raise UserError(f"a run-length code of {outline.get('size')!r:.40}, the image is {[h, w]}")
    if not isinstance(counts, str | bytes | list) or not counts:
        raise UserError(f"its run-length code is {counts!r:.40}; wanted a list of whole numbers, or text")
    try:
        runs = [int(c) for c in counts] if isinstance(counts, list) else _counts(counts)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"its run-length code {counts!r:.40} cannot be read") from None
    if sum(runs) != h * w or min(runs) < 0:
        raise UserError(f"its run-length code adds up to {sum(runs)} pixels, the image has {h * w}")
    return runs


def _counts(code: str | bytes) -> list[int]:
    """Run lengths from COCO's compressed form: 5 bits a letter, differences to the run before the last.

    pycocotools trusts the letters, and can be made to write where it should not.
    """
    letters = [c - 48 for c in (code.encode("ascii") if isinstance(code, str) else code)]
    if not letters or min(letters) < 0 or max(letters) > 63:
        raise ValueError("letters that no run-length code has")
    counts: list[int] = []
    value = shift = 0
    for letter in letters:
        value |= (letter & 0x1F) << shift
        shift += 5
        if letter & 0x20:
            continue
        value -= (letter & 0x10) << 1 << (shift - 5)  # the sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length code that breaks off")
    return counts
