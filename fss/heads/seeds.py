"""Where superpixels start: points of a mask far from each other and from the background.

Li, Jampani, Sevilla-Lara, Sun, Kim, Kim, "Adaptive Prototype Learning and Allocation for Few-Shot
Segmentation", CVPR 2021, section 3.2; after Irving, "maskSLIC", 2016.
"""

import cv2
import numpy as np

STRIDE = 8  # image pixels to a feature cell


def place_seeds(mask: np.ndarray, most: int, cells: float) -> np.ndarray:
    """Seeds of one mask, on the grid of feature cells.

    Args:
        mask: (H,W) bool.
        most: seeds at most.
        cells: foreground cells to a seed.

    Returns:
        (n,2) int64, row and column; n = round(foreground cells / `cells`), halves to even, and none
        where that is below 2: one prototype needs no clustering.
    """
    grid = on_grid(mask)
    count = min(round(grid.sum() / cells), most)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    rows, columns = np.nonzero(grid)
    top, left = rows.min(), columns.min()
    crop = grid[top : rows.max() + 1, left : columns.max() + 1]
    return _spread(crop, count) + np.array([top, left])


def on_grid(mask: np.ndarray) -> np.ndarray:
    """A mask (H,W) at the features' size (h,w), nearest: source index floor(i * H / h)."""
    h, w = ((side - 1) // STRIDE + 1 for side in mask.shape)
    rows, columns = np.arange(h) * mask.shape[0] // h, np.arange(w) * mask.shape[1] // w
    return mask[np.ix_(rows, columns)]


def _spread(crop: np.ndarray, count: int) -> np.ndarray:
    """Each seed is the pixel farthest from background and from the seeds before it; first in row order."""
    squared = _squared_distance(crop)
    rows, columns = np.indices(crop.shape)
    seeds = np.zeros((count, 2), np.int64)
    for i in range(count):
        r, c = seeds[i] = np.unravel_index(squared.argmax(), crop.shape)
        squared = np.minimum(squared, (rows - r) ** 2 + (columns - c) ** 2)
    return seeds


def _squared_distance(crop: np.ndarray) -> np.ndarray:
    """Squared distance to the background, whole numbers so that equal distances tie.

    Outside the crop is no background, unless there is none inside.
    """
    ring = int(crop.all())
    padded = np.pad(crop.astype(np.uint8), ring)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squared = np.rint(distance.astype(np.float64) ** 2).astype(np.int64)
    return squared[ring : ring + crop.shape[0], ring : ring + crop.shape[1]]
