"""Strokes, boxes and points as a person would put them on an image: simulated from a mask, or given.

docs/scribbles.md has the rule of simulation. Marks are (H,W) uint8: 0 background, 1 the object, 255 not
marked.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from fss.episode import IGNORE
from fss.errors import UserError

Kind = Literal["scribble", "box", "points"]
KINDS: tuple[Kind, ...] = ("scribble", "box", "points")

WIDTH = 0.01  # widths of a stroke and of a point, in the image's longer sides
SMALL = 0.05  # parts of an object below this share of its pixels are passed over
PARTS = 5  # parts that are marked, largest first
BENDS = 5  # points of a stroke


def simulate(mask: np.ndarray, kind: Kind, random: np.random.Generator) -> np.ndarray:
    """Marks for the object in a mask; strokes and points never on ignored pixels, nor beyond its edge.

    scribble: a stroke along each part of the object, and one through the background of each quarter of the
    image. points: a click deep inside each of these. box: a tight box round each part; all outside of them is
    marked 0, the inside 255.

    Args:
        mask: (H,W) uint8: 1 the object, 0 background, 255 ignored.
        random: where strokes bend and clicks fall.

    Returns:
        (H,W) uint8.

    Raises:
        ValueError: a mask without object.
    """
    if not (mask == 1).any():
        raise ValueError("a mask without object has nothing to mark")
    parts = object_parts(mask == 1)
    if kind == "box":
        return _boxes(parts)
    marks = np.full(mask.shape, IGNORE, np.uint8)
    for label, regions in ((0, _quarters(mask == 0)), (1, parts)):
        for region in regions:
            line = _stroke if kind == "scribble" else _click
            marks[line(region, random) & region] = label
    return marks


def object_parts(mask: np.ndarray) -> list[np.ndarray]:
    """Connected parts of a mask (H,W) bool, largest first: all but the small ones, `PARTS` at most."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")[:PARTS]
    return [labels == i + 1 for i in order if i == order[0] or areas[i] >= SMALL * mask.sum()]


def _quarters(background: np.ndarray) -> list[np.ndarray]:
    """The largest connected background of each quarter of the image, where it fills a tenth of that."""
    found = []
    for rows in np.array_split(np.arange(background.shape[0]), 2):
        for columns in np.array_split(np.arange(background.shape[1]), 2):
            quarter = np.zeros_like(background)
            quarter[np.ix_(rows, columns)] = background[np.ix_(rows, columns)]
            if quarter.sum() >= max(0.1 * len(rows) * len(columns), 1):
                found.append(object_parts(quarter)[0])
    return found


def thickness(shape: tuple[int, ...]) -> int:
    """The width of strokes, pixels."""
    return max(round(WIDTH * max(shape)), 1)


def _stroke(region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A bent line along a region's longer axis, from its 10% to its 90% quantile, (H,W) bool.

    It bends at pixels that are at least 0.6 times as deep inside as the deepest nearby.
    """
    depth = _depth(region)
    y, x = np.nonzero(region)
    along = _axis(x, y)
    edges = np.quantile(along, np.linspace(0.1, 0.9, BENDS + 1))
    bends = []
    for low, high in pairwise(edges):
        here = np.flatnonzero((along >= low) & (along <= high))
        if len(here):
            bends.append(_deep(depth[y[here], x[here]], np.stack([x[here], y[here]], 1), random))
    line = np.zeros(region.shape, np.uint8)
    cv2.polylines(line, [np.array(bends, np.int32)], False, (1,), thickness(region.shape))
    for bx, by in bends:  # these points are inside the region, so that a stroke is never empty
        line[by, bx] = 1
    return line == 1


def _click(region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A disc at a place deep inside a region, (H,W) bool."""
    y, x = np.nonzero(region)
    place = _deep(_depth(region)[y, x], np.stack([x, y], 1), random)
    return disc(region.shape, int(place[0]), int(place[1]))


def disc(shape: tuple[int, ...], x: int, y: int) -> np.ndarray:
    """A point's pixels, (H,W) bool: a disc as wide as two strokes."""
    out = np.zeros(shape, np.uint8)
    cv2.circle(out, (x, y), thickness(shape), (1,), -1)
    return out == 1


def _depth(region: np.ndarray) -> np.ndarray:
    """Squared distance to the region's edge, the image's border counting as one, pixels.

    These are whole numbers: OpenCV's distances vary in their last bit from call to call.
    """
    inside = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.rint(distance.astype(np.float64) ** 2).astype(np.int64)


def _axis(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Places along the direction in which pixels spread most, (P,)."""
    places = np.stack([x, y], 1).astype(np.float64)
    places -= places.mean(0)
    _, directions = np.linalg.eigh(places.T @ places)
    axis = directions[:, -1] * (1 if directions[0, -1] >= 0 else -1)
    return np.round(places @ axis, 6)  # sums of floats may differ in their last bits, too


def _deep(depth: np.ndarray, places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One of the places (P,2) at least 0.6 times as deep as the deepest; `depth` is squared."""
    good = np.flatnonzero(25 * depth >= 9 * depth.max())
    return places[random.choice(good)]


def _boxes(parts: list[np.ndarray]) -> np.ndarray:
    marks = np.zeros(parts[0].shape, np.uint8)
    for part in parts:
        y, x = np.nonzero(part)
        marks[y.min() : y.max() + 1, x.min() : x.max() + 1] = IGNORE
    return marks


def points_marks(points: Sequence[tuple[int, int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Marks (H,W) of clicks (x, y, label), pixels from the top left; later ones lie on top.

    Raises:
        UserError: a point outside of the image.
    """
    marks = np.full(shape, IGNORE, np.uint8)
    for x, y, label in points:
        if not (0 <= x < shape[1] and 0 <= y < shape[0]):
            raise UserError(
                f"point {x},{y} is outside of the image; allowed: 0,0 to {shape[1] - 1},{shape[0] - 1}"
            )
        marks[disc(shape, x, y)] = label
    return marks
