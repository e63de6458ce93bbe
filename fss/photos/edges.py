"""Soft masks brought to the edges of their photo.

He, Sun, Tang: "Guided Image Filtering", ECCV 2010, with colour as the guide (equations 19 to 21): in every
window, the mask is the linear function of the photo's colours that comes closest to it.
"""

import cv2
import numpy as np

from fss.photos.prediction import enlarge

LONGEST = 1536  # pixels of a side at which masks are filtered; larger photos' masks are enlarged from there
REACH = 12  # half a window, in the network's pixels
_SMOOTH = 1e-4  # variance of a colour, of values 0..1, that counts as an edge
_SURE = 1e-4  # a probability's distance from 0 and 1; its log-odds stay finite


class Guide:
    """A photo, and how its colours vary in windows of 2 `radius` + 1 pixels.

    Args:
        image: (H,W,3) RGB uint8.
        radius: pixels.
    """

    def __init__(self, image: np.ndarray, radius: int) -> None:
        self.window = 2 * min(radius, *(side - 1 for side in image.shape[:2])) + 1
        self.colours = image.astype(np.float32) / 255  # (H,W,3)
        self.mean = self._mean(self.colours)
        pairs = self.colours[..., [0, 0, 0, 1, 1, 2]] * self.colours[..., [0, 1, 2, 1, 2, 2]]
        centre = self.mean[..., [0, 0, 0, 1, 1, 2]] * self.mean[..., [0, 1, 2, 1, 2, 2]]
        self.inverse = _inverse(np.dstack([self._mean(pairs[..., :3]), self._mean(pairs[..., 3:])]) - centre)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """A map (H,W) float32 of the photo's size, filtered."""
        level = self._mean(values)
        covariance = self._mean(self.colours * values[..., None]) - self.mean * level[..., None]
        xx, xy, xz, yy, yz, zz = np.moveaxis(self.inverse, -1, 0)
        x, y, z = np.moveaxis(covariance, -1, 0)
        slope = np.stack([xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z], -1)
        level = level - (slope * self.mean).sum(-1)
        return (self._mean(slope) * self.colours).sum(-1) + self._mean(level)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (self.window, self.window), borderType=cv2.BORDER_REFLECT)


def refined(odds: np.ndarray, image: np.ndarray, size: int) -> np.ndarray:
    """Log-odds (N,h,w) at the photo's edges: (N,H,W) of the photo, or of a copy of `LONGEST` pixels.

    Args:
        image: (H,W,3) RGB uint8.
        size: longest side at which the network saw it, pixels.
    """
    longest = max(image.shape[:2])
    if longest > LONGEST:
        h, w = (max(round(side * LONGEST / longest), 1) for side in image.shape[:2])
        image, longest = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA), LONGEST
    guide = Guide(image, max(round(REACH * longest / size), 1))
    shares = (guide(1 / (1 + np.exp(-enlarge(one, image.shape[:2]).clip(-50, 50)))) for one in odds)
    return np.stack([np.log(p / (1 - p)) for p in (np.clip(share, _SURE, 1 - _SURE) for share in shares)])


def _inverse(moments: np.ndarray) -> np.ndarray:
    """The inverses of symmetric 3 x 3 matrices, plus `_SMOOTH`: (...,6) of xx, xy, xz, yy, yz, zz."""
    xx, xy, xz, yy, yz, zz = np.moveaxis(moments, -1, 0)
    xx, yy, zz = xx + _SMOOTH, yy + _SMOOTH, zz + _SMOOTH
    adjoint = np.stack(
        [
            yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy, xx * zz - xz * xz, xy * xz - xx * yz,
            xx * yy - xy * xy,
        ], -1,
    )  # fmt: skip
    return adjoint / (xx * adjoint[..., 0] + xy * adjoint[..., 1] + xz * adjoint[..., 2])[..., None]
