"""Photos looked at in squares, where objects are small for the network: which squares, and how they join."""

from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np

from fss.errors import UserError

Tile = int | None | Literal["auto"]
OVERLAP = 0.25  # overlap of a tile, on each side that has a neighbour
LEAST = 32  # pixels of an object's side, as the network sees it, below which tiles are taken
_WANTED = 64  # pixels of that side in a tile
_FEWEST = 5  # a tile's side is at least the photo's divided by this
CROPS = 12  # squares that are cut from all supports of a class at most, and at least one from each
Box = tuple[int, int, int, int]  # top, left, bottom, right


def check_tile(tile: object) -> None:
    """Raise `UserError` unless a tile's side is "auto", None or a number of pixels to be looked at."""
    whole = isinstance(tile, int) and not isinstance(tile, bool)
    if tile is not None and tile != "auto" and not (whole and tile >= 32):  # type: ignore[operator]
        raise UserError(f"tile {tile}; allowed: auto, or whole numbers from 32 pixels on")


def share_of(masks: Sequence[np.ndarray], size: int) -> float | None:
    """A tile's side as a share of the photo's longest that suits these objects; None for the whole photo.

    Args:
        masks: (H,W) each, 1 on the objects of one photo and class.
        size: longest side that the network sees, pixels.
    """
    sides = [size * object_side(mask) / max(mask.shape) for mask in masks]
    usual = float(np.median(sides))
    return None if usual >= LEAST else max(usual / _WANTED, 1 / _FEWEST)


def object_side(mask: np.ndarray) -> float:
    """The usual side of the objects in a mask (H,W), pixels: half of the marked area lies in larger ones."""
    areas = sorted((int(a) for a, _ in _objects(mask)), reverse=True)
    upper = int(np.searchsorted(np.cumsum(areas), sum(areas) / 2))
    return float(np.sqrt(areas[upper]))


def crops(mask: np.ndarray, tile: int, most: int) -> list[Box]:
    """At most so many squares of `tile` pixels round the objects of a mask (H,W), the largest first."""
    height, width = mask.shape
    found: list[Box] = []
    left = sorted(_objects(mask), key=lambda x: -x[0])
    while left and len(found) < most:
        y, x = left[0][1]
        top = int(np.clip(y - tile // 2, 0, max(height - tile, 0)))
        side = int(np.clip(x - tile // 2, 0, max(width - tile, 0)))
        found.append((top, side, min(top + tile, height), min(side + tile, width)))
        left = [o for o in left[1:] if not _inside(o[1], found[-1])]
    return found


def joined(
    image: np.ndarray, tile: int, look: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:  # fmt: skip
    """Log-odds (N,H,W) of a photo, of those that `look` gives (N,h,w) for each of its tiles.

    Args:
        image: (H,W,3).
        progress: called with tiles done and tiles in all.
    """
    height, width = image.shape[:2]
    places = [(y, x) for y in _starts(height, tile) for x in _starts(width, tile)]
    total = np.zeros(0, np.float32)
    weight = np.zeros((height, width), np.float32)
    for done, (y, x) in enumerate(places, 1):
        part = image[y : y + tile, x : x + tile]
        h, w = part.shape[:2]
        share, odds = _ramp(h, w), look(part)
        total = total if total.size else np.zeros((len(odds), height, width), np.float32)
        for n, one in enumerate(odds):
            total[n, y : y + h, x : x + w] += share * cv2.resize(one, (w, h), interpolation=cv2.INTER_LINEAR)
        weight[y : y + h, x : x + w] += share
        if progress:
            progress(done, len(places))
    total /= weight
    return total


def _objects(mask: np.ndarray) -> list[tuple[int, tuple[float, float]]]:
    """Areas (pixels) and centres (y, x) of the connected parts of 1 in a mask (H,W)."""
    _, _, stats, centres = cv2.connectedComponentsWithStats((mask == 1).astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return [(int(a), (float(y), float(x))) for a, (x, y) in zip(areas, centres[1:], strict=True)]


def _inside(point: tuple[float, float], box: Box) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


def _starts(length: int, tile: int) -> list[int]:
    """The first pixels of tiles along a side: evenly spaced, the last one ending with it."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - OVERLAP)))) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


def _ramp(height: int, width: int) -> np.ndarray:
    """Weights (h,w) of a tile: 1 inside, falling to its edges, where the neighbour knows more."""
    sides = []
    for length in (height, width):
        from_edge = np.minimum(np.arange(length) + 1, np.arange(length, 0, -1))
        sides.append(np.minimum(from_edge / max(OVERLAP * length, 1), 1))
    return np.outer(*sides).astype(np.float32)
