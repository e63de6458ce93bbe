"""Supports as people have them: a photo and its mask, a folder of both, labelme's files, or a COCO file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fss.data.photos import SUFFIXES
from fss.data.prepare.own import Annotated, read_annotated
from fss.episode import IGNORE
from fss.errors import UserError
from fss.photos.annotations import Support

WANTED = (
    "wanted IMG MASK, a folder of photos and masks of the same names, two such folders, a labelme JSON file "
    "or a folder of them, or a COCO JSON file; then perhaps a class's name"
)
_ENDS = ("_mask", "-mask", ".mask", " mask")  # ends of a mask's name that its photo's does not have


def supports_of(words: Sequence[str]) -> list[Support]:
    """The supports of one `--support`, whatever it names.

    Args:
        words: one or two paths, and perhaps a class: the name of what is marked, or, of a file with several
            classes, the one that is meant.

    Raises:
        UserError: nothing is there, it is of no known kind, or it has no photo with the class.
    """
    if not words:
        raise UserError(f"--support: {WANTED}")
    first = Path(words[0])
    annotated = first.suffix.lower() == ".json" or (first.is_dir() and any(first.rglob("*.json")))
    rest = [Path(word) for word in words[1:]]
    if annotated or first.is_dir():
        second = rest.pop(0) if rest and rest[0].is_dir() else None
        name = _name(words, [str(path) for path in rest])
        return _annotated(first, second, name) if annotated else _pairs(first, second or first, name)
    if len(words) < 2:
        there = "" if first.exists() else f"{first} does not exist; "
        raise UserError(f"--support {' '.join(words)}: {there}{WANTED}")
    return [Support(first, rest[0], _name(words, words[2:]))]


def _name(words: Sequence[str], left: Sequence[str]) -> str | None:
    if len(left) > 1:
        raise UserError(f"--support {' '.join(words)}: {WANTED}")
    return left[0] if left else None


def _pairs(photos: Path, masks: Path, name: str | None) -> list[Support]:
    """Photos and masks with one name each; of two PNGs in one folder, the mask is the one named so."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(photos.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            found[path.stem].append(path)
    drawn = {_plain(p): p for p in sorted(masks.iterdir()) if p.suffix.lower() in (".png", ".bmp", ".tif")}
    pairs = []
    for stem, paths in found.items():
        mask = drawn.get(stem)
        others = [path for path in paths if path != mask]
        if mask and others:
            pairs.append(Support(others[0], mask, name))
    if not pairs:
        raise UserError(
            f"no photo in {photos} has a mask of its name in {masks}: looked for pairs such as cat.jpg and "
            "cat.png, or cat.png and cat_mask.png"
        )
    return pairs


def _plain(mask: Path) -> str:
    """The name that a mask's photo should have."""
    return next((mask.stem.removesuffix(end) for end in _ENDS if mask.stem.endswith(end)), mask.stem)


def _annotated(source: Path, images: Path | None, name: str | None) -> list[Support]:
    """Supports of labelme's or COCO's annotations: one for each photo and class."""
    problems: list[str] = []
    read = read_annotated(source, images, problems)
    if problems:
        more = f"\nand {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError("\n".join(problems[:5]) + more)
    if name is not None and name not in read.classes:
        raise UserError(f"{source} has no class {name!r}; there are: {', '.join(read.classes) or 'none'}")
    found = _drawn(read, [name] if name is not None else read.classes)
    if not found:
        raise UserError(f"{source} has no photo with an annotation{f' of {name}' if name else ''}")
    return found


def _drawn(read: Annotated, names: Sequence[str]) -> list[Support]:
    numbers = {name: n for n, name in enumerate(read.classes, 1)}
    found = []
    for item in read.items:
        labels = item.draw(numbers)
        for name in names:
            if (labels == numbers[name]).any():
                mask = np.where(labels == IGNORE, IGNORE, labels == numbers[name]).astype(np.uint8)
                found.append(Support(item.image, mask, name))
    return found
