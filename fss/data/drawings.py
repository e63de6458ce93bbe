"""Masks and scribbles as people save them: labels (H,W), and what speaks against a file of them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fss.data.photos import WIDE, opened, orientation
from fss.episode import IGNORE
from fss.errors import UserError

MOST_LABELS = 64  # labels of a mask at most; more are shades of an edge, or a photo
_MANY = 8  # of which many are too many to be labels of one image
SHADE = 96  # a label from here on, beside much white, is no label but a grey
_LOSSY = ("GIF", "JPEG", "MPO", "WEBP")  # formats that may store other values than were drawn


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
    with opened(path, "mask") as picture:
        labels = _labels(picture, path)
    turn = orientation(photo) if photo else 1
    if turn >= 5:  # only after a quarter turn do sizes tell which of the two was drawn on
        with opened(photo, "image") as picture:  # type: ignore[arg-type]
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
    counts = np.bincount(mask.ravel(), minlength=256)
    if wrong := shades(counts):
        raise UserError(f"{where} {wrong}")
    if counts[1:IGNORE].any():
        return mask
    if not counts[IGNORE]:
        raise UserError(f"{where} is empty: all its pixels are 0; paint the object with 1 or white (255)")
    return (mask == IGNORE).astype(np.uint8)


def shades(counts: np.ndarray) -> str:
    """What tells a mask's values from labels; empty where they can be labels.

    Args:
        counts: (256,) pixels of each value.
    """
    named = np.flatnonzero(counts[1:IGNORE]) + 1
    white, rest = counts[IGNORE], counts[named].sum()
    greys = white and len(named) and named.max() >= SHADE and (white > rest or len(named) >= _MANY)
    greys = greys or (len(named) > 2 and white > 4 * rest)
    if len(named) <= MOST_LABELS and not greys:
        return ""
    return (
        f"has {np.count_nonzero(counts)} different values; a mask has one a class. Save it without smooth "
        "edges, as PNG and not as JPEG"
    )


def is_black_and_white(counts: np.ndarray) -> bool:
    """Whether pixels of each value (256,) are those of a mask of 0 and 255 alone."""
    return bool(counts[IGNORE]) and not counts[1:IGNORE].any()


def is_inverted(picture: Image.Image) -> bool:
    """Whether a palette shows label 0 in white and label 1 in black, so that either may be the object."""
    colours = (picture.getpalette("RGB") or [])[:6] if picture.mode == "P" else []
    return colours == [255] * 3 + [0] * 3


def check_format(picture: Image.Image, path: Path) -> None:
    """`UserError` where a mask's file may hold other labels than were drawn, or several masks."""
    if picture.format in _LOSSY:
        raise UserError(f"mask {path} is a {picture.format} file, which may alter labels; save it as PNG")
    if picture.format == "TIFF" and getattr(picture, "n_frames", 1) > 1:
        raise UserError(f"mask {path} has {picture.n_frames} pages; save one alone")  # type: ignore[attr-defined]


def _labels(picture: Image.Image, path: Path) -> np.ndarray:
    check_format(picture, path)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "1":
        return np.array(picture).astype(np.uint8)
    if picture.mode == "P":
        return _palette_labels(picture)
    if picture.mode == "L":
        return np.array(picture)
    if picture.mode in WIDE:
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


def _turned(labels: np.ndarray, orientation: int) -> np.ndarray:
    """Labels turned as EXIF orientations 5 to 8 turn a picture."""
    flips = {5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    return np.ascontiguousarray(np.flip(labels.T, flips))
