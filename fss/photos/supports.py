"""Supports as people have them: a photo and its mask, a folder of both, or files of annotations."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fss.data.formats import is_picture, meant
from fss.data.pairs import pairs_of
from fss.data.photos import photo_size, read_photo
from fss.data.prepare.findings import Findings
from fss.data.prepare.item import Annotated, Item
from fss.data.prepare.own import read_annotated
from fss.data.prepare.recognise import files_of
from fss.episode import IGNORE
from fss.errors import UserError
from fss.photos.annotations import Support

WANTED = (
    "wanted IMG MASK, a folder of photos and masks of the same names, two such folders, or annotations: a "
    "labelme, COCO, VIA or CVAT file, or a folder of them; then perhaps a class's name"
)
_ANNOTATIONS = (".json", ".xml")


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
    _check_words(words)
    annotated = first.suffix.lower() in _ANNOTATIONS or (
        first.is_dir() and any(file.kind for file in files_of(first))
    )
    rest = [Path(word) for word in words[1:]]
    if annotated or first.is_dir():
        second = rest.pop(0) if rest and rest[0].is_dir() else None
        name = _name(words, [str(path) for path in rest])
        return _annotated(first, second, name) if annotated else _pairs(first, second or first, name)
    if len(words) < 2:
        there = "" if first.exists() else f"{first} does not exist{meant(first)}; "
        raise UserError(f"--support {' '.join(words)}: {there}{WANTED}")
    return [Support(first, rest[0], _name(words, words[2:]))]


def _check_words(words: Sequence[str]) -> None:
    """`UserError` where annotations are named with the photo that they name themselves."""
    files = [word for word in words[:2] if Path(word).suffix.lower() in _ANNOTATIONS]
    photos = [word for word in words[:2] if is_picture(Path(word))]
    if files and photos:
        raise UserError(
            f"--support {' '.join(words)}: {files[0]} names its photos itself; leave {photos[0]} out"
        )
    if len(words) > 3 and all(is_picture(Path(word)) for word in words):
        raise UserError(f"--support {' '.join(words)}: say --support once for each photo and its mask")


def _name(words: Sequence[str], left: Sequence[str]) -> str | None:
    if len(left) > 1:
        raise UserError(f"--support {' '.join(words)}: {WANTED}")
    return left[0] if left else None


def _pairs(photos: Path, masks: Path, name: str | None) -> list[Support]:
    """Photos and masks with one name each."""
    pairs, problems = pairs_of(photos, masks)
    problems += [file.problem for file in files_of(photos) if file.problem]
    if not pairs:
        raise UserError(
            f"no photo in {photos} has a mask of its name in {masks}: looked for pairs such as cat.jpg and "
            "cat.png, or cat.png and cat_mask.png" + "".join(f"\n{line}" for line in problems[:5])
        )
    _warn(problems)
    return [Support(pair.photo, pair.mask, name) for pair in pairs]


def _annotated(source: Path, images: Path | None, name: str | None) -> list[Support]:
    """Supports of a program's annotations: one for each photo and class."""
    findings = Findings()
    read = read_annotated(source, images, findings)
    if findings.problems:
        raise UserError(_first(findings.problems))
    if name is not None and name not in read.classes:
        raise UserError(f"{source} has no class {name!r}; there are: {', '.join(read.classes) or 'none'}")
    found = _drawn(read, [name] if name is not None else read.classes)
    _warn([f"left out: {line}" for line in findings.left_out])
    if not found:
        raise UserError(f"{source} has no photo with an annotation{f' of {name}' if name else ''}")
    return found


def _drawn(read: Annotated, names: Sequence[str]) -> list[Support]:
    numbers = {name: n for n, name in enumerate(read.classes, 1)}
    found = []
    for item in read.items:
        _check_size(item)
        labels = item.draw(numbers)
        for name in names:
            if (labels == numbers[name]).any():
                mask = np.where(labels == IGNORE, IGNORE, labels == numbers[name]).astype(np.uint8)
                image = item.image if item.content is None else read_photo(item.file)
                found.append(Support(image, mask, name))
    return found


def _check_size(item: Item) -> None:
    """Compare sizes before anything is drawn, since a file may ask for any."""
    sizes = photo_size(item.file)
    if item.size not in sizes:
        (h, w), (height, width) = sizes[1], item.size
        raise UserError(f"{item.image} is {w}x{h}, its annotation in {item.source} {width}x{height}")


def _warn(lines: Sequence[str]) -> None:
    if lines:
        print(f"fss: warning: {_first(lines)}", file=sys.stderr)


def _first(lines: Sequence[str], most: int = 5) -> str:
    return "\n".join(lines[:most]) + (f"\nand {len(lines) - most} more" if len(lines) > most else "")
