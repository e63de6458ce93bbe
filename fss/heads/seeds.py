"""Where superpixels start: points of a mask far from each other and from the background.

Li, Jampani, Sevilla-Lara, Sun, Kim, Kim, "Adaptive Prototype Learning and Allocation for Few-Shot
Segmentation", CVPR 2021, section 3.2; after Irving, "maskSLIC", 2016.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fss.ops import exporting


class Seeds(NamedTuple):
    """Seeds of M masks: `places` (M,N,2) int64, row and column in cells, zero-padded; `counts` (M,) of
    them."""

    places: Tensor
    counts: Tensor


def seeds_of(masks: Tensor, size: tuple[int, int], most: int, cells: float) -> Seeds:
    """Seeds of masks (M,H,W) bool on a grid of `size` cells, at most `most` each: `place_seeds`, mask by
    mask."""
    if exporting():
        return Seeds(*seeds_in_graph(masks, size, most, cells))
    found = [place_seeds(mask, size, most, cells) for mask in masks.cpu().numpy()]
    places = torch.zeros(len(found), most, 2, dtype=torch.int64)
    for row, points in zip(places, found, strict=True):
        row[: len(points)] = torch.from_numpy(points)
    counts = torch.tensor([len(points) for points in found])
    return Seeds(places.to(masks.device), counts.to(masks.device))


def place_seeds(mask: np.ndarray, size: tuple[int, int], most: int, cells: float) -> np.ndarray:
    """Seeds of one mask, on the grid of feature cells.

    Args:
        mask: (H,W) bool.
        size: (h,w) of the grid.
        most: seeds at most.
        cells: foreground cells to a seed.

    Returns:
        (n,2) int64, row and column; n = round(foreground cells / `cells`), halves to even, and none
        where that is below 2: one prototype needs no clustering.
    """
    grid = on_grid(mask, size)
    count = min(round(grid.sum() / cells), most)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    rows, columns = np.nonzero(grid)
    top, left = rows.min(), columns.min()
    crop = grid[top : rows.max() + 1, left : columns.max() + 1]
    return _spread(crop, count) + np.array([top, left])


def on_grid(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H,W) at the features' size (h,w), nearest: source index floor(i * H / h)."""
    h, w = size
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


def seeds_in_graph(masks: Tensor, size: tuple[int, int], most: int, cells: float) -> tuple[Tensor, Tensor]:
    """`place_seeds` of K masks (K,H,W) bool as tensor operations, without a branch: for exported graphs.

    Returns:
        seeds (K,most,2), zero-padded, and how many of them count (K,); int64, equal to `place_seeds`.
    """
    rows, columns = (torch.arange(n) * side // n for n, side in zip(size, masks.shape[-2:], strict=True))
    # A rim of one cell, so that the ring around an object that fills its box has a place.
    grid = F.pad(masks.index_select(1, rows).index_select(2, columns).long(), (1, 1, 1, 1))  # (K,h+2,w+2)
    counts = torch.round(grid.sum((1, 2)).double() / cells).long().clamp(max=most)
    counts = torch.where(counts < 2, 0, counts)
    squared = _squared_in_graph(grid == 1)
    height, width = squared.shape[1:]
    y, x = torch.arange(height)[:, None], torch.arange(width)
    seeds = []
    for i in range(most):
        best = squared.flatten(1).float().argmax(1)  # (K,), the first in row order
        r, c = best // width, best % width
        squared = torch.minimum(squared, (y - r[:, None, None]) ** 2 + (x - c[:, None, None]) ** 2)
        seeds.append(torch.where((i < counts)[:, None], torch.stack([r, c], 1) - 1, 0))
    return torch.stack(seeds, 1), counts


def _squared_in_graph(grid: Tensor) -> Tensor:
    """`_squared_distance` of grids (K,h,w) bool, with a rim: int64; 0 on background, -1 outside the box."""
    box = _between(grid.any(2))[:, :, None] & _between(grid.any(1))[:, None]  # (K,h,w)
    background = box & ~grid
    ring = F.max_pool2d(box.float(), 3, 1, 1).bool() & ~box
    background = background | ring & ~background.flatten(1).any(1)[:, None, None]
    far = 4 * max(grid.shape[1:]) ** 2
    # Exact in two steps: along rows, then along columns.
    along = [_places(n) for n in grid.shape[1:]]
    free = torch.where(background, 0, far)  # (K,h,w)
    across = (free[:, :, None, :] + along[1]).amin(3)  # (K,h,w)
    squared = (across.mT[:, :, None, :] + along[0]).amin(3).mT
    return torch.where(box, squared, -1)


def _between(there: Tensor) -> Tensor:
    """(K,n) bool -> True from the first True to the last."""
    n = torch.arange(there.shape[1])
    first = torch.where(there, n, there.shape[1]).amin(1, keepdim=True)
    last = torch.where(there, n, -1).amax(1, keepdim=True)
    return (n >= first) & (n <= last)


def _places(n: int) -> Tensor:
    """Squared distances (n,n) of n places."""
    at = torch.arange(n)
    return (at[:, None] - at) ** 2
