"""A user's own annotations, whatever program made them, into the `folder` layout."""

import hashlib
import io
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import ImageOps

from fss.data.folder import read_classes
from fss.data.pairs import pictures
from fss.data.photos import opened, photo_size
from fss.data.prepare.common import Prepared, name_problem, tally, write, write_list, write_mask
from fss.data.prepare.findings import Findings
from fss.data.prepare.item import Item
from fss.data.prepare.own import read_annotated
from fss.errors import UserError, why

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
    found = Prepared(root, problems=findings.problems, notes=findings.notes, left_out=findings.left_out)
    known = list(read_classes(root)) if (root / "classes.txt").is_file() else []
    items, used = read_annotated(source, images, findings)
    found.notes += _bare(
        items, images or (source if source.is_dir() else source.parent), root, found.problems
    )
    items = _usable(items, root, found.problems)
    if not items:
        raise UserError("\n".join([f"no annotated image in {source}", *found.problems[:20]]))
    classes = known + [name for name in dict.fromkeys(used) if name not in known]
    _check_names(classes, source)
    found.notes += _alike(classes)
    found.notes.append("classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(classes, 1)))
    lists = {split: _lines(root / LISTS / f"{split}.txt") for split in ("train", "val")}
    make = partial(_make, root, {name: i for i, name in enumerate(classes, 1)})
    with ThreadPoolExecutor() as pool:
        good = tally(found, [i.name for i in items], pool.map(make, items), "images and masks")
    if not good:
        raise UserError("\n".join([f"no image in {source} could be used", *found.problems[:20]]))
    write(root / "classes.txt", "".join(f"{name}\n" for name in classes).encode())
    # Lines with two paths are somebody's own, and stay.
    listed = {line for lines in lists.values() for line in lines if line.strip()}
    there = {line for line in listed if "/" in line or (root / MASKS / f"{line}.png").is_file()}
    if gone := sorted(listed - there - good):
        found.notes.append(
            f"off the lists, since their masks are gone: {', '.join(gone[:5])} ({len(gone)} in all)"
        )
    for split, names in _deal(lists, good | there, val).items():
        write_list(found, root / LISTS / f"{split}.txt", names)
        if not names:
            found.problems.append(f"{split}.txt is empty: {len(good)} images are too few for both lists")
    return found


def _bare(items: list[Item], folder: Path, root: Path, problems: list[str]) -> list[str]:
    """A line on the pictures of a folder that no annotation is for."""
    used, named = {p for i in items for p in (i.image, i.source)}, "\n".join(problems)
    bare = [
        p for p in pictures(folder) if p not in used and not p.is_relative_to(root) and str(p) not in named
    ]
    some = ", ".join(map(str, bare[:3])) + (", ..." if len(bare) > 3 else "")
    return [f"passed over, since no annotation is for them: {len(bare)} pictures, {some}"] if bare else []


def _alike(classes: list[str]) -> list[str]:
    """A line for each two names of classes that differ in capitals alone."""
    first: dict[str, str] = {}
    twins = [(first.setdefault(name.casefold(), name), name) for name in classes]
    return [f"{a} and {b} are two classes; for one, give them one spelling" for a, b in twins if a != b]


def _usable(items: list[Item], root: Path, problems: list[str]) -> list[Item]:
    """Items whose names and images are their own; the others go to `problems`."""
    names, files = Counter(i.name for i in items), defaultdict[Path, list[Path]](list)
    for item in items:
        files[item.image].append(item.source)
    good = []
    for item in items:
        wrong = name_problem(item.name)
        if len(files[item.image]) > 1:
            both = " and ".join(map(str, files[item.image][:2]))
            wrong = f"image {item.image} is annotated twice, in {both}; take one of the two away"
        elif names[item.name] > 1:
            wrong = f"several images are named {item.name}, such as {item.image}; rename all but one"
        elif item.source.resolve() == (root / MASKS / f"{item.name}.png").resolve():
            wrong = f"mask {item.source} lies where it would be written: take another --root"
        good += [] if wrong else [item]
        problems += [wrong] if wrong and wrong not in problems else []
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
    if item.content is None and not item.image.exists():
        return f"{item.source}: image {item.image} does not exist; say with --images where images are"
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
        raise UserError(
            f"list {path} cannot be read ({why(error)}); mend it, or give another --root"
        ) from None
