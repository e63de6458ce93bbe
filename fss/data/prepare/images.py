"""The image that an annotation names, found as people's programs write names down."""

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from fss.data.photos import photo_size
from fss.errors import UserError


def find_image(named: str, folder: Path, images: Path | None, where: str) -> Path:
    """The file that an annotation names.

    A name may have Windows' backslashes, be absolute, or have its accents composed otherwise or its suffix in
    other letters than the file. Where nothing lies at a name's own place, its last part is looked for.

    Args:
        folder: the folder that names start from, that of the annotation; files beside it may be named, too.
        images: the folder to look into instead, where the user says one.
        where: the annotation, for messages.

    Returns:
        The file, or, where there is none, the place where it should be.

    Raises:
        UserError: the name leads out of the folders that it may name.
    """
    below = _parts(named)
    start = images or folder
    first = start / below
    outside = not _within(first, images or folder.absolute().parent)
    for path in (first, start / below.name):
        if outside and path == first:
            continue
        if found := _there(path):
            return found
    if outside:
        raise UserError(
            f"{where}: image {named!r} leads out of {images or folder}; say with --images where they are"
        )
    return first


def stored_size(image: Path, where: str) -> tuple[int, int]:
    """(H,W) of an image whose annotation does not say for what size it is.

    Raises:
        UserError: the file is missing or damaged, or its EXIF tag gives it another size on the screen.
    """
    if not image.exists():
        raise UserError(f"{where}: image {image} does not exist; say with --images where images are")
    stored, shown = photo_size(image)
    if stored != shown:
        raise UserError(
            f"{where} does not say its image's height and width, and {image} is turned by its EXIF tag; "
            "write them into it, or save the photo upright"
        )
    return stored


def whole_side(value: object) -> int | None:
    """A side in pixels, from whatever a program wrote for it; None where it is none."""
    try:
        side = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    fits = not isinstance(value, bool) and side.is_integer() and 0 < side < 2**16
    return int(side) if fits else None


def given_size(height: object, width: object) -> tuple[int, int] | None:
    """(H,W) as an annotation says it; None where it does not, or not in a way that can be used."""
    h, w = whole_side(height), whole_side(width)
    return (h, w) if h and w else None


def _parts(named: str) -> Path:
    return Path(PureWindowsPath(named).as_posix()) if "/" not in named else Path(PurePosixPath(named))


def _within(path: Path, folder: Path) -> bool:
    # Links stay as they are: a user's own may lead anywhere, an annotation's name may not.
    inside, around = os.path.normpath(path.absolute()), os.path.normpath(folder.absolute())
    return Path(inside).is_relative_to(around)


def _there(path: Path) -> Path | None:
    if path.is_file():
        return path
    return _alike(str(path.parent)).get(_key(path.name)) if path.name else None


@lru_cache(maxsize=64)
def _alike(folder: str) -> dict[str, Path]:
    return {_key(path.name): path for path in _files(Path(folder))}


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if path.is_file())
    except OSError:
        return


def _key(name: str) -> str:
    """A name with accents composed and the suffix in small letters."""
    composed = unicodedata.normalize("NFC", name)
    return composed.removesuffix(Path(composed).suffix) + Path(composed).suffix.lower()
