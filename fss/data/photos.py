"""People's own photos and masks: any format, size, depth and orientation, as a viewer shows them.

Data sets are read by `fss.data.files`, which wants one format and says what deviates from it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fss.episode import IGNORE
from fss.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MOST_LABELS = 64  # in a mask; more are shades of an edge, or a photo
_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits


def read_photo(path: Path) -> np.ndarray:
    """A photo as RGB uint8 (H,W,3), turned as its EXIF tag says; what is transparent lies on white.

    Grey, palette and CMYK become RGB. 16 bits become 8, the upper ones.

    Raises:
        UserError: missing, damaged, or of an unknown format.
    """
    with _opened(path, "image") as picture:
        return _rgb(picture)


def read_drawing(path: Path, photo: Path | None = None) -> np.ndarray:
    """A mask or scribble as uint8 labels (H,W); palette images keep their indices.

    Colour images pass where all channels agree; alpha plays no part. Of 16 bits, 65535 reads as 255.

    Args:
        photo: the image that was drawn on. A drawing as large as the photo is stored, before its EXIF tag
            turns it, is turned with it.

    Raises:
        UserError: missing, damaged, with colours in place of labels, or labels beyond 255.
    """
    with _opened(path, "mask") as picture:
        labels = _labels(picture, path)
    turn = _orientation(photo) if photo else 1
    if turn >= 5:  # a quarter turn: only then do sizes tell which of the two was drawn on
        with _opened(photo, "image") as picture:  # type: ignore[arg-type]
            stored = picture.height, picture.width
        if labels.shape == stored and stored[0] != stored[1]:
            return _turned(labels, turn)
    return labels


def object_labels(mask: np.ndarray, where: str) -> np.ndarray:
    """What a mask (H,W) means: 0 background, labels from 1 on, 255 ignored.

    A mask of 0 and 255 alone is black and white, and its white the object (1).

    Args:
        where: named in messages.

    Raises:
        UserError: nothing is marked, or there are so many values that they cannot be labels.
    """
    values = np.unique(mask)
    named = values[(values != 0) & (values != IGNORE)]
    if len(named) > MOST_LABELS:
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
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"image {path} does not exist")
    by_stem: dict[str, Path] = {}
    for path in dict.fromkeys(found):
        twin = by_stem.setdefault(path.stem, path)
        if twin != path:
            raise UserError(f"{twin} and {path} have one name, so that results would mix; rename one")
    return list(by_stem.values())


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            picture.load()
            yield picture
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{what} {path} is a folder") from None
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{what} {path} is damaged or of an unknown format ({error})") from None


def _rgb(picture: Image.Image) -> np.ndarray:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _WIDE:
        values = np.asarray(picture).astype(np.float64)
        # 16 bits also where the file keeps them in 32; fractions are taken for 0..1.
        scale = 255 if picture.mode == "F" and values.max() <= 1 else 1 / 257 if values.max() > 255 else 1
        grey = (values * scale).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(picture.convert("RGB"))  # a copy: PyTorch wants to own what it writes to


def _labels(picture: Image.Image, path: Path) -> np.ndarray:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "1":
        return np.array(picture).astype(np.uint8)
    if picture.mode in ("L", "P"):
        return np.array(picture)
    if picture.mode in _WIDE:
        wide = np.asarray(picture)
        labels = np.where(wide == 65535, IGNORE, wide)
        if (labels != labels.round()).any() or labels.min() < 0 or labels.max() > 255:
            raise UserError(f"mask {path} has values from {wide.min()} to {wide.max()}; allowed: 0 to 255")
        return labels.astype(np.uint8)
    channels = np.asarray(picture.convert("RGB"))
    if picture.mode not in ("RGB", "RGBA", "LA") or (channels != channels[..., :1]).any():
        raise UserError(
            f"mask {path} has colours; save it as a grey or palette PNG: 0 background, 1, 2, ... the classes"
        )
    return channels[..., 0].copy()


def _orientation(path: Path) -> int:
    with _opened(path, "image") as picture:
        found = picture.getexif().get(0x0112, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(labels: np.ndarray, orientation: int) -> np.ndarray:
    """Labels turned as EXIF orientations 5 to 8 turn a picture."""
    flips = {5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    return np.ascontiguousarray(np.flip(labels.T, flips))
