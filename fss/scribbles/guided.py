"""Label maps enlarged along the image's edges.

He, Sun, Tang: "Guided Image Filtering", ECCV 2010 (equations 5, 6 and 8), with the grey image as the guide.
"""

import cv2
import numpy as np

_SMOOTH = 1e-4  # squared contrast, of grey values 0..1, that counts as an edge


def enlarge(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Labels (h,w) uint8 -> (H,W) uint8, of the size of `image` (H,W,3) RGB uint8.

    Each label's map is enlarged and filtered; a pixel takes the label whose map leads there.
    """
    height, width = image.shape[:2]
    if labels.shape == (height, width):
        return labels
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    radius = max(round(2 * height / labels.shape[0]), 1)  # two cells of the small map, pixels
    mean, variance = _moments(guide, radius)
    best = np.full((height, width), -np.inf, np.float32)
    out = np.zeros((height, width), np.uint8)
    for label in np.unique(labels):
        one = (labels == label).astype(np.float32)
        one = cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR)
        level = _box(one, radius)
        slope = (_box(guide * one, radius) - mean * level) / (variance + _SMOOTH)
        value = _box(slope, radius) * guide + _box(level - slope * mean, radius)
        lead = value > best
        out[lead], best[lead] = label, value[lead]
    return out


def _moments(x: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    mean = _box(x, radius)
    return mean, _box(x * x, radius) - mean * mean


def _box(x: np.ndarray, radius: int) -> np.ndarray:
    """Mean over squares of 2 `radius` + 1 pixels."""
    return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
