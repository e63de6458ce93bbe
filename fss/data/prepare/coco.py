"""COCO 2014: masks and lists from the instance annotations, through pycocotools.

The rule: an object's region gets its category's label, 1..80 in order of category id. Crowd regions are
regions of their category like any other. Where objects overlap the smaller one lies on top (by the area
of its region, then by the order in the file). Images without any annotation are left out.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fss.data.coco import COCO_CLASSES
from fss.data.prepare.common import Prepared, fetch_zip, name_problem, tally, write_list, write_mask
from fss.errors import UserError

SPLITS = {"train": "train2014", "val": "val2014"}
MASKS = "SegmentationClass"
_URLS = {
    "train2014": "http://images.cocodataset.org/zips/train2014.zip",
    "val2014": "http://images.cocodataset.org/zips/val2014.zip",
    "annotations": "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
}
_GET = "Put COCO 2014 there as train2014/, val2014/ and annotations/instances_{train,val}2014.json"
_SLACK = 1.0  # pixels that a polygon may reach over the image's border


class Region(NamedTuple):
    """One annotated object: its label and COCO's `segmentation` (polygons, RLE, or compressed RLE)."""

    label: int
    outline: Any
    number: int  # the annotation's id, for messages


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
        jobs = list(collect(content, labels, root / folder, root / MASKS / folder, found.problems))
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
    """The content of a COCO instance file.

    Raises:
        UserError: missing, no JSON, without images, annotations and categories that can be used, or
            with one of them twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"annotations {path} cannot be read ({error}). {hint}") from None
    for part, rules in _RULES.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"annotations {path}: {part} must be a list of objects")
        for i, entry in enumerate(entries):
            wrong = [k for k, fit in rules.items() if not (isinstance(entry, dict) and fit(entry.get(k)))]
            if wrong:
                raise UserError(f"annotations {path}: {part}[{i}] has no usable {', '.join(wrong)}")
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


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < 2**16


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and name_problem(value) is None and Path(value).name != ""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


_RULES: dict[str, dict[str, Callable[[Any], bool]]] = {
    "images": {"id": _is_id, "file_name": _is_file, "height": _is_side, "width": _is_side},
    "annotations": {"id": _is_id, "image_id": _is_id, "category_id": _is_id},
    "categories": {"id": _is_id, "name": _is_name},
}


def collect(
    content: Mapping[str, Any], labels: Mapping[Any, int], images: Path, masks: Path, problems: list[str]
) -> Iterator[Job]:
    """One job for each image with annotations; annotations that fit nothing go to `problems`."""
    regions: dict[Any, list[Region]] = {entry["id"]: [] for entry in content["images"]}
    for a in content["annotations"]:
        if a.get("category_id") not in labels:
            problems.append(f"annotation {a['id']}: unknown category {a.get('category_id')}")
        elif a.get("image_id") not in regions:
            problems.append(f"annotation {a['id']}: unknown image {a.get('image_id')}")
        else:
            regions[a["image_id"]].append(Region(labels[a["category_id"]], a.get("segmentation"), a["id"]))
    for entry in content["images"]:
        own, path = regions[entry["id"]], images / entry["file_name"]
        if own:
            size = (int(entry["height"]), int(entry["width"]))
            yield Job(path.stem, path, masks / f"{path.stem}.png", size, own)


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


def draw(regions: list[Region], size: tuple[int, int], name: str) -> np.ndarray:
    """The label map (H,W) uint8 of an image's objects, small ones on top.

    Raises:
        UserError: an outline that is malformed or reaches out of the image.
    """
    from pycocotools import mask as api

    coded = [_encode(region, size, name) for region in regions]
    labels = np.zeros(size, np.uint8)
    for i in sorted(range(len(coded)), key=lambda i: -float(api.area(coded[i]))):
        labels[api.decode(coded[i]) > 0] = regions[i].label
    return labels


def _encode(region: Region, size: tuple[int, int], name: str) -> dict[str, Any]:
    """A region as compressed RLE, after every check that pycocotools leaves out."""
    from pycocotools import mask as api

    outline, (h, w) = region.outline, size
    where = f"{name}, annotation {region.number}"
    try:
        if isinstance(outline, dict):
            if list(outline["size"]) != [h, w]:
                raise UserError(f"{where}: a run-length code of {outline['size']}, the image is {[h, w]}")
            counts = outline["counts"]
            counts = _counts(counts) if isinstance(counts, str | bytes) else [int(c) for c in counts]
            if sum(counts) != h * w or min(counts) < 0:
                raise ValueError(f"counts add up to {sum(counts)}, the image has {h * w} pixels")
            return dict(api.frPyObjects({"size": [h, w], "counts": counts}, h, w))
        for polygon in outline:
            points = np.asarray(polygon, float).reshape(-1, 2)
            if len(points) < 3 or not np.isfinite(points).all():
                raise ValueError("a polygon needs three points or more")
            over = max(-points.min(), *(points.max(0) - (w, h)))
            if over > _SLACK:
                raise UserError(f"{where}: a polygon reaches {over:.1f} pixels out of the image ({w}x{h})")
        if not outline:
            raise ValueError("no polygon")
        return dict(api.merge(api.frPyObjects(outline, h, w)))
    except UserError:
        raise
    except Exception as error:  # pycocotools raises many kinds
        raise UserError(f"{where}: no outline that can be read ({error})") from None


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
