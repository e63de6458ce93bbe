"""A user's own annotations, whatever program made them, into the `folder` layout."""

import hashlib
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import ImageOps

from fss.data.folder import read_classes
from fss.data.photos import opened, photo_size
from fss.data.prepare.common import Prepared, name_problem, tally, write, write_list, write_mask
from fss.data.prepare.findings import Findings
from fss.data.prepare.item import Item
from fss.data.prepare.own import read_annotated
from fss.errors import UserError

MASKS, LISTS = "SegmentationClass", "ImageSets/Segmentation"
_READABLE = (".jpg", ".jpeg", ".png", ".bmp")  # in the VOC layout; others become PNG
LEAVE_OUT = ("image", "annotation")


def prepare_folder(
    root: Path, source: Path, images: Path | None = None, val: float = 0.5, leave_out: str = "image"
) -> Prepared:
    """Copy images and draw masks into `root`, with classes.txt and lists.

    What is there and as it should be is kept. Classes and lists that are there stay as they are: new
    classes get numbers at the end, new images are dealt out to both lists.

    Args:
        source: a file or folder of annotations, as of `read_annotated`.
        images: where the images are; default: beside the annotations.
        val: share of the images that go into val.txt.
        leave_out: for an annotation that cannot be drawn: its whole "image", or that "annotation" alone.

    Raises:
        UserError: nothing is found at `source`, or annotations are of no known kind, or of 255 classes.
    """
    if not 0 < val < 1:
        raise UserError(f"--val {val}: allowed is a share above 0 and below 1, such as 0.5")
    if leave_out not in LEAVE_OUT:
        raise UserError(f"--leave-out {leave_out}; allowed: {', '.join(LEAVE_OUT)}")
    findings = Findings(leave_out)
    found = Prepared(root, problems=findings.problems, said=findings.said, left_out=findings.left_out)
    known = list(read_classes(root)) if (root / "classes.txt").is_file() else []
    items, used = read_annotated(source, images, findings)
    items = _usable(items, root, found.problems)
    if not items:
        raise UserError("\n".join([f"no annotated image in {source}", *found.problems[:20]]))
    classes = known + [name for name in dict.fromkeys(used) if name not in known]
    _check_names(classes, source)
    found.said.append("classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(classes, 1)))
    lists = {split: _lines(root / LISTS / f"{split}.txt") for split in ("train", "val")}
    write(root / "classes.txt", "".join(f"{name}\n" for name in classes).encode())
    make = partial(_make, root, {name: i for i, name in enumerate(classes, 1)})
    with ThreadPoolExecutor() as pool:
        good = tally(found, [i.name for i in items], pool.map(make, items), "images and masks")
    # Lines with two paths are somebody's own, and stay.
    listed = {line for lines in lists.values() for line in lines if line.strip()}
    there = {line for line in listed if "/" in line or (root / MASKS / f"{line}.png").is_file()}
    for split, names in _deal(lists, good | there, val).items():
        write_list(found, root / LISTS / f"{split}.txt", names)
        if not names:
            found.problems.append(f"{split}.txt is empty: {len(good)} images are too few for both lists")
    return found


def _usable(items: list[Item], root: Path, problems: list[str]) -> list[Item]:
    """Items whose names and images are their own; the others go to `problems`."""
    names, files = Counter(i.name for i in items), Counter(i.image for i in items)
    good = []
    for item in items:
        wrong = name_problem(item.name)
        if names[item.name] > 1:
            wrong = f"several images are named {item.name}; rename all but one"
        elif files[item.image] > 1:
            wrong = f"{item.source}: image {item.image} belongs to another annotation, too"
        elif item.source.resolve() == (root / MASKS / f"{item.name}.png").resolve():
            wrong = f"mask {item.source} lies where it would be written: take another --root"
        good += [] if wrong else [item]
        problems += [wrong] if wrong else []
    return good


def _check_names(classes: list[str], source: Path) -> None:
    odd = [name for name in classes if not name.strip() or not name.isprintable()]
    if odd or not 0 < len(classes) <= 254:
        raise UserError(
            f"{source} names {len(classes)} classes"
            + (f", of them {odd[0]!r}, which is no name" if odd else "; 1 to 254 are allowed")
        )


def _make(root: Path, numbers: dict[str, int], item: Item) -> str | None:
    """Copy the image and draw the mask; as `write_mask` says."""
    try:
        image = _place(item, root / "JPEGImages")
    except UserError as error:
        return str(error)
    mask = root / MASKS / f"{item.name}.png"
    return write_mask(mask, image, lambda: item.draw(numbers), item.size, keep=False)


def _place(item: Item, folder: Path) -> Path:
    """The image below `folder`: a copy, turned upright where its annotation is for the upright image."""
    stored, shown = photo_size(item.file)
    suffix, turn = item.image.suffix.lower(), shown != stored and shown == item.size
    if not turn and stored != item.size:
        h, w = item.size
        raise UserError(f"image {item.image} is {stored[1]}x{stored[0]}, its annotation {w}x{h}")
    copy = suffix in _READABLE and not turn
    path = folder / f"{item.name}{suffix if copy else '.png'}"
    others = [p for t in _READABLE if (p := folder / f"{item.name}{t}") != path and p.is_file()]
    if others:
        raise UserError(f"image {others[0]} is in the way of {path.name}; move one of the two away")
    if copy:
        write(path, item.content or item.image.read_bytes())
    else:
        with opened(item.file, "image") as image:
            upright = ImageOps.exif_transpose(image) if turn else image
            upright.convert("RGB").save(data := io.BytesIO(), "PNG")
        write(path, data.getvalue())
    return path


def _deal(lists: dict[str, list[str]], names: set[str], share: float) -> dict[str, list[str]]:
    """Names to train and val: those in a list stay there, others are dealt in the order of their hashes."""
    lists = {split: [name for name in own if name in names] for split, own in lists.items()}
    fresh = sorted(names - set(lists["train"]) - set(lists["val"]), key=_digest)
    more = min(max(round(share * len(names)) - len(lists["val"]), 0), len(fresh))
    return {"train": lists["train"] + fresh[more:], "val": lists["val"] + fresh[:more]}


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error}); mend it, or give another --root") from None
