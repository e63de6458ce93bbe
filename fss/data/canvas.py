"""How a photo comes to the network's square canvas, and how an answer goes back to the photo's size.

"pad" keeps the aspect ratio (CWT, ASGNet, PFENet); "squash" (HSNet, ICCV 2021, section 4) and "stretch"
(HDMNet, CVPR 2023) lose it.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from fss.config import DataConfig, Resize
from fss.episode import IGNORE


class Canvas(NamedTuple):
    """A square canvas, and the way by which photos come to it.

    Attributes:
        size: S, pixels.
        resize: "pad": the longest side becomes S, at the top left of an empty canvas; "squash" and "stretch":
            both do, by PIL and by OpenCV.
    """

    size: int
    resize: Resize = "pad"

    @classmethod
    def of(cls, data: DataConfig) -> "Canvas":
        """The canvas of a configuration."""
        return cls(data.size, data.resize)

    def image(self, image: np.ndarray) -> np.ndarray:
        """A photo (H,W,3) of 0..255 on its canvas (S,S,3), of the same type."""
        return _IMAGE[self.resize](image, self.size)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A label map (H,W) on its canvas, (S,S) uint8; 255 where that is empty."""
        return _MASK[self.resize](mask, self.size)

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """(h,w) of the canvas that a photo of (H,W) fills, from the top left; the rest is empty."""
        both = (self.size, self.size)
        return fitted_size(height, width, self.size) if self.resize == "pad" else both

    def framed(self, labels: Tensor) -> Tensor:
        """Labels (H,W) of original size in the frame that the whole canvas is resized to: the way back."""
        return square(labels) if self.resize == "pad" else labels


def fitted_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(h,w) after the padding resize: longest side to `size`, then each side down to a multiple of 8.

    The order of operations matters: b * S / a lands on another multiple for a few sizes.
    """
    scale = size / max(height, width)
    sides = [size if side == max(height, width) else int(side * scale) for side in (height, width)]
    return max(sides[0] // 8 * 8, 8), max(sides[1] // 8 * 8, 8)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Padding resize of an image (H,W,3): (S,S,3) 0..255, top left of a black canvas.

    As published on float32; bytes stay bytes, rounded to whole numbers, and take a fifth of the time.
    """
    h, w = fitted_size(image.shape[0], image.shape[1], size)
    canvas = np.zeros((size, size, 3), image.dtype)
    canvas[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    return canvas


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Padding resize of a mask (H,W): nearest, uint8 (S,S), top left of a canvas of 255."""
    h, w = fitted_size(mask.shape[0], mask.shape[1], size)
    canvas = np.full((size, size), IGNORE, np.uint8)
    canvas[:h, :w] = cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)
    return canvas


def square(mask: Tensor) -> Tensor:
    """A mask (H,W) at the top left of a square of its longer side, the rest 255, as the canvas has it."""
    side = max(mask.shape)
    out = mask.new_full((side, side), IGNORE)
    out[: mask.shape[0], : mask.shape[1]] = mask
    return out


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Squashing resize of an image (H,W,3) of whole numbers 0..255: (S,S,3) of the same type.

    PIL's bilinear on bytes, which looks at all pixels where it shrinks and rounds; OpenCV's does neither. It
    resizes one side after the other and rounds in between, and its versions differ in which comes first:
    here the longer one does.
    """
    photo, (h, w) = Image.fromarray(image.astype(np.uint8)), image.shape[:2]
    for columns_rows in ((size, h) if w >= h else (w, size), (size, size)):
        photo = photo.resize(columns_rows, Image.Resampling.BILINEAR)
    return np.array(photo, image.dtype)


def squash_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Squashing resize of a mask (H,W): (S,S) uint8, nearest."""
    rows, columns = (nearest(side, size) for side in mask.shape)
    return mask[rows[:, None], columns].astype(np.uint8)


def nearest(before: int, after: int) -> np.ndarray:
    """The source of each of `after` pixels among `before`, floor(i * before / after), as torch's `nearest`.

    Ratio and product are rounded to float32, as published; a double lands elsewhere in some rows.
    """
    ratio = np.float32(before / after)
    return (np.arange(after, dtype=np.float32) * ratio).astype(np.int64).clip(max=before - 1)


def stretch(image: np.ndarray, size: int) -> np.ndarray:
    """Stretching resize of an image (H,W,3): (S,S,3) of the same type, by OpenCV's bilinear.

    It looks at four pixels, however many lie between; of floats it rounds nothing.
    """
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def stretch_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Stretching resize of a mask (H,W): (S,S) uint8, OpenCV's nearest."""
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST).astype(np.uint8)


_IMAGE = {"pad": fit, "squash": squash, "stretch": stretch}
_MASK = {"pad": fit_mask, "squash": squash_mask, "stretch": stretch_mask}
