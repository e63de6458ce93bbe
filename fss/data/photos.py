"""People's own photos: any format, size, depth and orientation, as a viewer shows them.

Data sets are read by `fss.data.files`, which wants one format and says what deviates from it.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fss.data.formats import SUFFIXES, advice, fault, is_picture, is_unread, meant, ready
from fss.data.pairs import photo_name
from fss.errors import UserError

MOST_PIXELS = 100_000_000  # of a photo; 12,000 x 8,000 take 1 GiB, and cameras make no larger ones
WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits
_ACCOUNT = "_predict.json"  # beside the results of fss predict
_WHITE_IS_ZERO = (262, 0)  # TIFF's photometric interpretation


def read_photo(path: Path | BinaryIO) -> np.ndarray:
    """A photo as RGB uint8 (H,W,3), turned as its EXIF tag says; what is transparent lies on white.

    Grey, palette and CMYK become RGB. 16 bits become 8, the upper ones; floats are taken for 0..1.

    Raises:
        UserError: missing, damaged, of an unknown format, or with values beyond its kind's range.
    """
    with opened(path, "image") as picture:
        return _rgb(picture, path)


class Photos(NamedTuple):
    """The photos of files and folders, and what else lies in those folders and looks like one.

    Attributes:
        unread: pictures of formats that are not read.
        drawings: masks and strokes, by their names, of photos that lie beside them; results of `fss predict`.
    """

    files: list[Path]
    unread: list[Path]
    drawings: list[Path]


def photos_of(paths: Sequence[Path]) -> Photos:
    """The photos named, those in folders by name.

    Raises:
        UserError: no such file or folder, no photo in one, or two of one name, whose results would mix.
    """
    found, unread, drawings = list[Path](), list[Path](), list[Path]()
    for path in paths:
        if path.is_dir():
            every = [p for p in sorted(path.iterdir()) if p.is_file()]
            pictures = [p for p in every if is_picture(p)]
            stems = {p.stem for p in pictures}
            results = tuple(p.name.removesuffix("predict.json") for p in every if p.name.endswith(_ACCOUNT))
            drawn = [
                p
                for p in pictures
                if p.name.startswith(results) or ((name := photo_name(p)) != p.stem and name in stems)
            ]
            unread += [p for p in every if is_unread(p)]
            drawings += drawn
            inside = [p for p in pictures if p not in drawn]
            if not inside:
                raise UserError(
                    f"no images in {path}; looked for {', '.join(SUFFIXES)}{_but(path, unread, drawn)}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise UserError(f"{path} is neither an image file nor a folder")
        else:
            raise UserError(f"image {path} does not exist{meant(path)}")
    return Photos(_once(found), unread, drawings)


def _but(folder: Path, unread: Sequence[Path], drawn: Sequence[Path]) -> str:
    if drawn:
        return f". {drawn[0].name} is a result of fss predict, or a mask; name the photos' own folder"
    if unread:
        return f". {unread[0].name}: {advice(unread[0])}"
    inner = next((p for p in sorted(folder.rglob("*")) if is_picture(p)), None)
    return f". There are some in {inner.parent}; name that folder" if inner else ""


def _once(paths: Sequence[Path]) -> list[Path]:
    by_stem: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        twin = by_stem.setdefault(path.stem, path)
        if twin != path:
            raise UserError(f"{twin} and {path} have one name, so that results would mix; rename one")
        if not path.name.isprintable():
            raise UserError(f"{str(path)!r} has a name that cannot be written down; rename it")
    return list(by_stem.values())


def photo_size(path: Path | BinaryIO) -> tuple[tuple[int, int], tuple[int, int]]:
    """(H,W) of a photo as stored, and as a viewer shows it, from its header alone.

    Raises:
        UserError: missing or damaged.
    """
    with opened(path, "image", load=False) as picture:
        stored = picture.height, picture.width
        tag = picture.getexif().get(0x0112, 1)
    return stored, (stored[1], stored[0]) if tag in (5, 6, 7, 8) else stored


@contextmanager
def opened(path: Path | BinaryIO, what: str, load: bool = True) -> Iterator[Image.Image]:
    """A picture's file, read as far as that it is known to be whole.

    Args:
        what: "image" or "mask", for messages.
        load: decode it; else its header alone is read.

    Raises:
        UserError: missing, damaged, too large, or of a format that is not read.
    """
    name = path if isinstance(path, Path) else "within the annotation"
    if isinstance(path, Path):
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe would wait for it
            raise UserError(f"{what} {path} is no file")
        ready(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large photo is no error
            with Image.open(path) as picture:
                if load:
                    _check_pixels(picture, f"{what} {name}")
                    picture.load()
                yield picture
    except FileNotFoundError:
        guess = meant(path) if isinstance(path, Path) else ""
        raise UserError(f"{what} {name} does not exist{guess}") from None
    except IsADirectoryError:
        raise UserError(f"{what} {name} is a folder") from None
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(_too_large(f"{what} {name}")) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(path, Path) and (way := advice(path)):
            raise UserError(f"{what} {path} cannot be read: {way}") from None
        raise UserError(f"{what} {name} is damaged or of an unknown format ({fault(path, error)})") from None


def _check_pixels(picture: Image.Image, what: str) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise UserError(f"{_too_large(what)} ({picture.width}x{picture.height})")


def _too_large(what: str) -> str:
    return (
        f"{what} has more than {MOST_PIXELS // 10**6} million pixels; make it smaller, or cut it into parts"
    )


def _rgb(picture: Image.Image, path: Path | BinaryIO) -> np.ndarray:
    inverted = getattr(picture, "tag_v2", {}).get(_WHITE_IS_ZERO[0]) == _WHITE_IS_ZERO[1]
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in WIDE:
        grey = _eight_bits(np.asarray(picture).astype(np.float64), picture.mode, path)
        return np.repeat((255 - grey if inverted else grey)[..., None], 3, 2)
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(picture.convert("RGB"))  # a copy: PyTorch wants to own what it writes to


def _eight_bits(values: np.ndarray, mode: str, path: Path | BinaryIO) -> np.ndarray:
    """Grey values (H,W) of more than 8 bits as uint8: 0..65535, or floats 0..1."""
    most = 1 if mode == "F" else 65535
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > most:
        raise UserError(
            f"image {path} has values from {values.min()} to {values.max()}; allowed: 0 to {most}. Save it "
            "with 8 or 16 bits"
        )
    return (values * 255 / most).astype(np.uint8)


def orientation(path: Path) -> int:
    with opened(path, "image") as picture:
        found = picture.getexif().get(0x0112, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
