"""COCO 2014: masks and lists from the instance annotations, through pycocotools.

The rule: an object's region gets its category's label, 1..80 in order of category id. Crowd regions are
regions of their category like any other. Where objects overlap the smaller one lies on top (by the area
of its region, then by the order in the file). Images without any annotation are left out.
"""

import json
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fss.data.coco import COCO_CLASSES
from fss.data.prepare.common import Prepared, fetch_zip, tally, write_list, write_mask
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
        labels = {c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]), 1)}
        names = tuple(c["name"] for c in sorted(content["categories"], key=lambda c: c["id"]))
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
        raise UserError(
            "COCO's annotations need pycocotools: pip install 'fss[prepare]', or pip install pycocotools"
        ) from None


def read_annotations(path: Path, hint: str) -> dict[str, Any]:
    """The content of a COCO instance file.

    Raises:
        UserError: missing, no JSON, or without images, annotations and categories; ends with `hint`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"annotations {path} cannot be read ({error}). {hint}") from None
    wanted = {"images": ("id", "file_name", "height", "width"), "annotations": ("id",),
              "categories": ("id", "name")}  # fmt: skip
    for part, keys in wanted.items():
        entries = content.get(part) if isinstance(content, dict) else None
        good = isinstance(entries, list) and all(
            isinstance(e, dict) and all(isinstance(e.get(k), int | str) for k in keys) for e in entries
        )
        if not good:
            raise UserError(f"annotations {path}: {part} must be a list of objects with {', '.join(keys)}")
    return dict(content)


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
    with get_context("spawn").Pool(initializer=_leave_interrupts) as pool:
        return tally(found, [j.name for j in jobs], pool.imap(make, jobs, chunksize=16), title)


def _leave_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process


def make(job: Job) -> str | None:
    """One image's mask; see `write_mask`."""
    return write_mask(job.mask, job.image, lambda: draw(job.regions, job.size, str(job.image)))


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
            coded = outline if isinstance(outline["counts"], str | bytes) else _from_counts(outline, h * w)
            return dict(api.merge([coded]))
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


def _from_counts(outline: dict[str, Any], pixels: int) -> dict[str, Any]:
    from pycocotools import mask as api

    if sum(outline["counts"]) != pixels or min(outline["counts"]) < 0:
        raise ValueError(f"counts add up to {sum(outline['counts'])}, the image has {pixels} pixels")
    return dict(api.frPyObjects(outline, *outline["size"]))
