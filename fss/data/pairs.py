"""Photos and their masks, paired by name."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fss.data.formats import LOSSLESS, SUFFIXES, advice, is_hidden, is_picture, is_unread

# Ends of the names of drawings that their photos' names do not have.
_ENDS = tuple(
    f"{mark}{word}"
    for word in ("mask", "masks", "label", "labels", "scribble", "gt", "seg")
    for mark in "_-. "
)


class Pair(NamedTuple):
    """A photo and its mask; `name` is the photo's path below its folder, without suffix, with slashes."""

    name: str
    photo: Path
    mask: Path


class Pairs(NamedTuple):
    """All pairs, and a line for each picture among the masks that belongs to none."""

    pairs: list[Pair]
    problems: list[str]


def photo_name(drawing: Path) -> str:
    """The name, without suffix, that a drawing's photo should have."""
    stem = Path(drawing.stem).stem if Path(drawing.stem).suffix.lower() in SUFFIXES else drawing.stem
    for end in _ENDS:
        if stem.lower().endswith(end) and len(stem) > len(end):
            return stem[: -len(end)]
    return stem


def pairs_of(photos: Path, masks: Path) -> Pairs:
    """Photos and masks of the same names, in two folders or in one, and in their sub-folders.

    A mask may be named as its photo (`cat.png` for `cat.jpg`), or after it (`cat_mask.png`, `cat.jpg.png`).
    In one folder, the picture named as a mask is one; of two of one name, that of a format that keeps labels.
    """
    every, drawn = pictures(photos), pictures(masks)
    one = photos.resolve() == masks.resolve()
    if one:
        drawn = [p for p in drawn if _is_mask(p, every)]
    elif photos.resolve().is_relative_to(masks.resolve()):
        drawn = [p for p in drawn if not p.is_relative_to(photos)]
    by_name, taken = defaultdict[str, list[Path]](list), set(drawn)
    for path in every:
        if path not in taken:
            by_name[_key(path, photos, path.stem)].append(path)
    unread = [] if one else _below(masks, is_unread)
    pairs, problems = [], [f"mask {path} is left out: {advice(path)}" for path in unread]
    seen: dict[str, Path] = {}
    for mask in drawn:
        names = (_key(mask, masks, mask.stem), _key(mask, masks, photo_name(mask)))
        name = next((n for n in names if n in by_name), names[0])
        fitting = by_name.get(name, [])
        if len(fitting) != 1:
            many = f"{len(fitting)} images in" if fitting else "no image in"
            problems.append(f"mask {mask} has {many} {photos}")
        elif name in seen:
            problems.append(f"mask {mask} is of the same image as {seen[name]}; take one of the two away")
        else:
            seen[name] = mask
            pairs.append(Pair(name, fitting[0], mask))
    return Pairs(pairs, problems)


def _is_mask(path: Path, every: Sequence[Path]) -> bool:
    """Whether a picture is a mask, where photos lie in the same folder."""
    if path.suffix.lower() not in LOSSLESS:
        return False
    twins = {p.stem for p in every if p.parent == path.parent and p != path}
    return path.stem in twins or (photo_name(path) != path.stem and photo_name(path) in twins)


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and its sub-folders."""
    return _below(folder, is_picture)


def _below(folder: Path, fits: Callable[[Path], bool]) -> list[Path]:
    return [
        p
        for p in sorted(folder.rglob("*"))
        if fits(p) and p.is_file() and not is_hidden(p.relative_to(folder))
    ]


def _key(path: Path, root: Path, stem: str) -> str:
    """A path below a folder, its accents composed."""
    return unicodedata.normalize("NFC", (path.relative_to(root).parent / stem).as_posix())
