"""Image -> classes: how many pixels each label has in each mask, counted once and kept."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fss.bars import Bar
from fss.data.drawings import is_black_and_white, shades
from fss.data.files import count_mask, image_size
from fss.data.lists import Sample
from fss.episode import IGNORE
from fss.errors import UserError

_AT_ONCE = 512  # masks handed to the threads: results in waiting take memory


class Index(NamedTuple):
    """Samples and their pixel counts.

    Attributes:
        names: of the images, in the list's order.
        pixels: (images, classes + 1) int32, column 0 background, at original size.
    """

    names: tuple[str, ...]
    pixels: np.ndarray

    def images_of(self, class_id: int, min_pixels: int) -> np.ndarray:
        """Positions of the images that count for a class: at least `min_pixels` of it."""
        return np.flatnonzero(self.pixels[:, class_id] >= min_pixels)


def build_index(samples: Sequence[Sample], num_classes: int, cache: Path | None = None) -> Index:
    """Count every mask's labels, or take the counts from `cache` for masks whose file has not changed.

    Args:
        cache: folder for the counts; None keeps nothing.

    Raises:
        UserError: an unreadable mask, a label that is no class, a mask of another size than its image.
    """
    stamps = np.array([_stamp(s) for s in samples], np.int64)  # (images,4)
    path = cache / f"index-{_key(samples, num_classes)}.npz" if cache else None
    pixels = np.zeros((len(samples), num_classes + 1), np.int32)
    stale = np.ones(len(samples), bool)
    kept = _kept(path) if path else None
    if kept and kept["stamps"].shape == stamps.shape and kept["pixels"].shape == pixels.shape:
        stale = (kept["stamps"] != stamps).any(1)
        pixels[~stale] = kept["pixels"][~stale]
    todo = np.flatnonzero(stale)
    if len(todo):
        with ThreadPoolExecutor() as pool, Bar(desc="reading masks", total=len(todo), leave=False) as bar:
            for part in np.array_split(todo, range(_AT_ONCE, len(todo), _AT_ONCE)):
                pixels[part] = list(pool.map(lambda i: count_labels(samples[i], num_classes), part))
                bar.update(len(part))
        if path:
            _save(path, stamps, pixels)
    return Index(tuple(s.name for s in samples), pixels)


def count_labels(sample: Sample, num_classes: int) -> np.ndarray:
    """Pixels of each class of one mask, (num_classes + 1,).

    Raises:
        UserError: an unreadable mask, a label that is no class, another size than the image's.
    """
    (h, w), found = count_mask(sample.mask)
    if (h, w) != (size := image_size(sample.image)):
        raise UserError(f"mask {sample.mask} is {w}x{h}, its image {size[1]}x{size[0]}")
    highest = num_classes if sample.label is None else 1
    wrong = [int(v) for v in np.flatnonzero(found) if highest < v != IGNORE]
    if wrong:
        listed = f"{wrong[:5]}" + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        grey = shades(found)
        raise UserError(
            f"mask {sample.mask} has unknown labels {listed}; allowed: 0..{highest} and {IGNORE}"
            + (f". It {grey}" if grey else "")
        )
    if sample.label is None:
        return found[: num_classes + 1]
    row = np.zeros(num_classes + 1, found.dtype)
    row[[0, sample.label]] = found[:2]
    return row


def white_masks(samples: Sequence[Sample]) -> str:
    """What to do about masks of 0 and 255 alone, whose objects are ignored; empty where there are none."""
    white = [s.mask for s in samples if is_black_and_white(count_mask(s.mask)[1])]
    if not white:
        return ""
    return (
        f"{len(white)} of {len(samples)} masks hold 0 and {IGNORE} alone, such as {white[0]}; {IGNORE} is "
        "ignored, so that they show no object. Paint objects with their class's label (1, 2, ...), or have "
        "that done: fss prepare folder --root NEW --from MASKS --images IMAGES"
    )


def _stamp(sample: Sample) -> tuple[int, int, int, int]:
    mask, image = sample.mask.stat(), sample.image.stat()
    return mask.st_mtime_ns, mask.st_size, image.st_mtime_ns, image.st_size


def _key(samples: Sequence[Sample], num_classes: int) -> str:
    text = "\n".join([str(num_classes), *(str(s.mask.absolute()) for s in samples)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(path: Path) -> dict[str, np.ndarray] | None:
    """The cache's arrays; None where it is not there, or damaged and so made anew."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in ("stamps", "pixels")}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def _save(path: Path, stamps: np.ndarray, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(half, stamps=stamps, pixels=pixels)
    half.replace(path)
