"""A folder of masks with photos of the same names."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fss.data.drawings import is_black_and_white, read_drawing, shades
from fss.data.folder import read_classes
from fss.data.pairs import Pair, pairs_of
from fss.data.prepare.findings import Findings
from fss.data.prepare.item import Annotated, Item
from fss.episode import IGNORE
from fss.errors import UserError, why

_CSV = "_classes.csv"  # beside Roboflow's masks


class _Mask(NamedTuple):
    pair: Pair
    counts: np.ndarray  # (256,) pixels of each value
    size: tuple[int, int]


def read_masks(source: Path, images: Path | None, findings: Findings) -> Annotated:
    """Masks with labels 0..N and 255, or black and white ones alone, whose white is one class.

    Args:
        images: the folder of photos; None: they lie among the masks.

    Raises:
        UserError: names of classes are there, and do not fit the masks.
    """
    pairs, problems = pairs_of(images or source, source)
    findings.problems += problems
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, pairs))
    findings.problems += [look for look in looks if isinstance(look, str)]
    seen = [look for look in looks if not isinstance(look, str)]
    labelled = [s for s in seen if s.counts[1:IGNORE].any()]
    white = [s for s in seen if is_black_and_white(s.counts)]
    if labelled and white:
        findings.problems += [_odd(s, labelled[0]) for s in white]
        seen = [s for s in seen if not is_black_and_white(s.counts)]
    whole = bool(white) and not labelled
    values = {IGNORE} if whole else {int(v) for s in labelled for v in np.flatnonzero(s.counts[1:IGNORE]) + 1}
    if seen and not values:
        raise UserError(
            f"{source}: all {len(seen)} masks are empty, 0 throughout; paint objects with 1, 2, ..."
        )
    if labelled and not any(s.counts[0] for s in seen):
        findings.notes.append(
            "no mask has a pixel of 0, the background, so that every label is a class; if one of them is the "
            "background, save it as 0"
        )
    names = _names(source, values, whole)
    return Annotated([_item(s, names, whole) for s in seen], list(names.values()))


def _look(pair: Pair) -> _Mask | str:
    try:
        mask = read_drawing(pair.mask)
    except UserError as error:
        return str(error)
    counts = np.bincount(mask.ravel(), minlength=256)
    wrong = shades(counts)
    return f"mask {pair.mask} {wrong}" if wrong else _Mask(pair, counts, (mask.shape[0], mask.shape[1]))


def _odd(white: _Mask, labelled: _Mask) -> str:
    found = ", ".join(map(str, np.flatnonzero(labelled.counts[1:IGNORE])[:5] + 1))
    return (
        f"mask {white.pair.mask} is black and white, others hold labels ({labelled.pair.mask}: {found}), "
        "beside which 255 means ignored; paint its object with its class's label"
    )


def _item(seen: _Mask, names: dict[int, str], whole: bool) -> Item:
    def draw(numbers: dict[str, int]) -> np.ndarray:
        table = np.zeros(256, np.uint8)
        table[IGNORE] = IGNORE
        for value, name in names.items():
            table[value] = numbers[name]
        return table[read_drawing(seen.pair.mask)]

    return Item(seen.pair.name.replace("/", "_"), seen.pair.photo, seen.pair.mask, seen.size, draw)


def _names(source: Path, values: set[int], whole: bool) -> dict[int, str]:
    """Label -> class name: of classes.txt or Roboflow's table, beside the masks or one up; or "class N"."""
    for folder in (source, source.parent):
        if (folder / "classes.txt").is_file():
            names = read_classes(folder)
            if whole:
                return {IGNORE: names[0]}
            if max(values, default=0) > len(names):
                raise UserError(
                    f"{folder / 'classes.txt'} names {len(names)} classes, masks hold label {max(values)}: "
                    "give each label a line, or take it out of the masks"
                )
            return dict(enumerate(names, 1))
        if (folder / _CSV).is_file() and not whole:
            return _table(folder / _CSV, values)
    return {IGNORE: "class 1"} if whole else {value: f"class {value}" for value in sorted(values)}


def _table(path: Path, values: set[int]) -> dict[int, str]:
    """Roboflow's table of pixel values and classes."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if len(row) >= 2 and row[0].strip().isdigit()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from None
    names = {int(row[0]): row[1].strip() for row in rows if int(row[0])}
    if missing := values - names.keys():
        raise UserError(f"{path} names no class for label {min(missing)}, which masks hold; add its line")
    return names
