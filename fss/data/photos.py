"""People's own photos and masks: any format, size, depth and orientation, as a viewer shows them.

Data sets are read by `fss.data.files`, which wants one format and says what deviates from it.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fss.episode import IGNORE
from fss.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MOST_LABELS = 64  # labels of a mask at most; more are shades of an edge, or a photo
SHADE = 96  # a label from here on, beside much white, is no label but a grey
_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits
_LOSSY = ("GIF", "JPEG", "MPO", "WEBP")  # formats that may store other values than were drawn
_WHITE_IS_ZERO = (262, 0)  # TIFF's photometric interpretation


def read_photo(path: Path) -> np.ndarray:
    """A photo as RGB uint8 (H,W,3), turned as its EXIF tag says; what is transparent lies on white.

    Grey, palette and CMYK become RGB. 16 bits become 8, the upper ones; floats are taken for 0..1.

    Raises:
        UserError: missing, damaged, of an unknown format, or with values beyond its kind's range.
    """
    with _opened(path, "image") as picture:
        return _rgb(picture, path)


def read_drawing(path: Path, photo: Path | None = None) -> np.ndarray:
    """A mask or scribble as uint8 labels (H,W); palette images keep their indices.

    Colour images pass where all channels agree. Of 16 bits, 65535 reads as 255. Palettes of black and white
    alone read as 0 and 255.

    Args:
        photo: the image that was drawn on. A drawing as large as the photo is stored, before its EXIF tag
            turns it, is turned with it.

    Raises:
        UserError: missing, damaged, of a format that alters values, with colours in place of labels, drawn
            in the alpha channel, or labels beyond 255.
    """
    with _opened(path, "mask") as picture:
        labels = _labels(picture, path)
    turn = _orientation(photo) if photo else 1
    if turn >= 5:  # only after a quarter turn do sizes tell which of the two was drawn on
        with _opened(photo, "image") as picture:  # type: ignore[arg-type]
            stored = picture.height, picture.width
        if labels.shape == stored and stored[0] != stored[1]:
            return _turned(labels, turn)
    return labels


def object_labels(mask: np.ndarray, where: str) -> np.ndarray:
    """The meaning of a mask (H,W): 0 background, labels from 1 on, 255 ignored.

    A mask of 0 and 255 alone is black and white, and its white the object (1).

    Args:
        where: named in messages.

    Raises:
        UserError: nothing is marked, or values cannot be labels: too many, or greys at a white object's edge.
    """
    values = np.unique(mask)
    named = values[(values != 0) & (values != IGNORE)]
    white, rest = (mask == IGNORE).sum(), np.isin(mask, named).sum()
    soft = len(named) and white > rest and (len(named) > 2 or named.max() >= SHADE)
    if len(named) > MOST_LABELS or soft:
        raise UserError(
            f"{where} has {len(values)} different values; a mask has one a class. Save it without smooth "
            "edges, as PNG and not as JPEG"
        )
    if len(named):
        return mask
    if IGNORE not in values:
        raise UserError(f"{where} is empty: all its pixels are 0; paint the object with 1 or white (255)")
    return (mask == IGNORE).astype(np.uint8)


def photos_of(paths: Sequence[Path]) -> list[Path]:
    """The photos named, those in folders by name.

    Raises:
        UserError: no such file or folder, no photo in one, or two of one name, whose results would mix.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"no images in {path}; looked for {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise UserError(f"{path} is neither an image file nor a folder")
        else:
            raise UserError(f"image {path} does not exist")
    by_stem: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        twin = by_stem.setdefault(path.stem, path)
        if twin != path:
            raise UserError(f"{twin} and {path} have one name, so that results would mix; rename one")
        if not path.name.isprintable():
            raise UserError(f"{str(path)!r} has a name that cannot be written down; rename it")
    return list(by_stem.values())


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe would wait for it
        raise UserError(f"{what} {path} is no file")
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")  # a large photo is no error
            picture.load()
            yield picture
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{what} {path} is a folder") from None
    except UserError:
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{what} {path} has more than {most} million pixels; cut it into parts") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{what} {path} is damaged or of an unknown format ({error})") from None


def _rgb(picture: Image.Image, path: Path) -> np.ndarray:
    inverted = getattr(picture, "tag_v2", {}).get(_WHITE_IS_ZERO[0]) == _WHITE_IS_ZERO[1]
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _WIDE:
        grey = _eight_bits(np.asarray(picture).astype(np.float64), picture.mode, path)
        return np.repeat((255 - grey if inverted else grey)[..., None], 3, 2)
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(picture.convert("RGB"))  # a copy: PyTorch wants to own what it writes to


def _eight_bits(values: np.ndarray, mode: str, path: Path) -> np.ndarray:
    """Grey values (H,W) of more than 8 bits as uint8: 0..65535, or floats 0..1."""
    most = 1 if mode == "F" else 65535
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > most:
        raise UserError(
            f"image {path} has values from {values.min()} to {values.max()}; allowed: 0 to {most}. Save it "
            "with 8 or 16 bits"
        )
    return (values * 255 / most).astype(np.uint8)


def _labels(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.format in _LOSSY:
        raise UserError(f"mask {path} is a {picture.format} file, which may alter labels; save it as PNG")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "1":
        return np.array(picture).astype(np.uint8)
    if picture.mode == "P":
        return _palette_labels(picture)
    if picture.mode == "L":
        return np.array(picture)
    if picture.mode in _WIDE:
        wide = np.asarray(picture)
        labels = np.where(wide == 65535, IGNORE, wide)
        if (labels != labels.round()).any() or labels.min() < 0 or labels.max() > 255:
            raise UserError(f"mask {path} has values from {wide.min()} to {wide.max()}; allowed: 0 to 255")
        return labels.astype(np.uint8)
    channels = np.asarray(picture.convert("RGB"))
    if picture.mode in ("RGBA", "LA"):
        alpha = np.asarray(picture.getchannel("A"))
        if alpha.min() != alpha.max() and (channels == channels[0, 0]).all():
            raise UserError(
                f"mask {path} is drawn in its alpha channel; save it as black and white, or labels"
            )
    if picture.mode not in ("RGB", "RGBA", "LA") or (channels != channels[..., :1]).any():
        raise UserError(
            f"mask {path} has colours; save it as a grey or palette PNG: 0 background, 1, 2, ... the classes"
        )
    return channels[..., 0].copy()


def _palette_labels(picture: Image.Image) -> np.ndarray:
    """Palette indices; programs that save black and white with a palette may number the two either way."""
    indices = np.array(picture)
    colours = np.array(picture.getpalette("RGB")).reshape(-1, 3)
    used = np.unique(indices)
    if used.max() < len(colours) and np.array_equal(np.unique(colours[used], axis=0), [[0] * 3, [255] * 3]):
        return colours[indices, 0].astype(np.uint8)
    return indices


def _orientation(path: Path) -> int:
    with _opened(path, "image") as picture:
        found = picture.getexif().get(0x0112, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(labels: np.ndarray, orientation: int) -> np.ndarray:
    """Labels turned as EXIF orientations 5 to 8 turn a picture."""
    flips = {5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    return np.ascontiguousarray(np.flip(labels.T, flips))
