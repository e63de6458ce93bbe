"""Drawing one image of `shapes`: objects with silhouette, texture and hues over clutter and a background."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from fss.episode import IGNORE

CLASSES: tuple[str, ...] = (
    "star_stripes", "gear_checks", "heart_dots", "arrow_zigzag", "moon_rings",
    "cross_checks", "fish_dots", "drop_zigzag", "bolt_rings", "house_stripes",
    "star_dots", "gear_zigzag", "heart_rings", "arrow_stripes", "moon_checks",
    "cross_zigzag", "fish_rings", "drop_stripes", "bolt_checks", "house_dots",
)  # fmt: skip
PAIR_OF_CLASS = (0, 1, 2, 3, 0, 2, 3, 0, 1, 1, 1, 2, 3, 3, 0, 1, 2, 2, 3, 0)
HUE_PAIRS = ((0, 55), (215, 165), (120, 300), (30, 265))  # degrees
TEXTURES = ("stripes", "checks", "dots", "zigzag", "rings")
FOLD_SIZE = 5
MIN_SIZE = 96  # px; below it the thinnest silhouettes cannot show MIN_PIXELS
MIN_PIXELS, MIN_SHARE = 300, 0.4  # share of an object that must stay visible
Range = tuple[float, float]


class Pose(NamedTuple):
    """Map from a silhouette's unit frame to the image: x -> matrix @ x + centre (px)."""

    matrix: np.ndarray
    centre: np.ndarray
    radius: float

    def polygon(self, points: np.ndarray) -> np.ndarray:
        return (points @ self.matrix.T + self.centre).astype(np.float32)

    def unit_grid(self, size: int) -> np.ndarray:
        """Unit-frame coordinates (2, size, size) of all pixels."""
        pixels = np.mgrid[:size, :size][::-1].reshape(2, -1) - self.centre[:, None]
        return (np.linalg.inv(self.matrix) @ pixels).reshape(2, size, size).astype(np.float32)


def draw_scene(rng: Generator, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One RGB image (size, size, 3) and its mask (size, size), uint8; class index `first` is tried."""
    classes = _choose_classes(rng, first)
    placed, owner = _place(rng, classes, size)
    image = _background(rng, size)
    for _ in range(rng.integers(2, 6)):
        image = _paint_clutter(rng, image)
    for label, pose in placed:
        silhouette, texture = CLASSES[label - 1].split("_")
        colours = _colours(rng, HUE_PAIRS[PAIR_OF_CLASS[label - 1]], (0.55, 0.95), (0.55, 1.0))
        image = _paint(rng, image, pose, _silhouettes()[silhouette], texture, colours)
    image = 255 * image + rng.uniform(2, 7) * rng.standard_normal(image.shape, np.float32)
    labels = np.array([0, *(label for label, _ in placed)], np.uint8)
    mask = np.where(_interior(owner), labels[owner], IGNORE).astype(np.uint8)
    return image.clip(0, 255).astype(np.uint8), mask


def _choose_classes(rng: Generator, first: int) -> list[int]:
    """One to three distinct class indices, in drawing order; the others mostly from the fold of `first`."""
    chosen = [first]
    for _ in range(rng.choice(3, p=(0.2, 0.4, 0.4))):
        fold = first // FOLD_SIZE if rng.random() < 0.8 else rng.integers(len(CLASSES) // FOLD_SIZE)
        pool = np.setdiff1d(fold * FOLD_SIZE + np.arange(FOLD_SIZE), chosen)
        chosen.append(int(rng.choice(pool)))
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _place(rng: Generator, classes: list[int], size: int) -> tuple[list[tuple[int, Pose]], np.ndarray]:
    """(label, pose) of each object that found room, and the map (size, size) of owners: 0, 1, 2, ..."""
    placed: list[tuple[int, Pose]] = []
    areas: list[float] = []
    owner: np.ndarray = np.zeros((size, size), np.uint8)
    for index in classes:
        points = _silhouettes()[CLASSES[index].split("_")[0]]
        for _ in range(40):
            pose = _random_pose(rng, size, (0.22, 0.38), (0.18, 0.82))
            polygon = pose.polygon(points)
            trial = cv2.fillPoly(owner.copy(), [np.rint(polygon).astype(np.int32)], len(placed) + 1)
            trial_areas = [*areas, cv2.contourArea(polygon)]
            if _all_visible(trial, trial_areas):
                placed, areas, owner = [*placed, (index + 1, pose)], trial_areas, trial
                break
    return placed, owner


def _all_visible(owner: np.ndarray, areas: list[float]) -> bool:
    seen = np.bincount(owner[_interior(owner)], minlength=len(areas) + 1)[1:]
    return bool(np.all(seen >= np.maximum(MIN_PIXELS, MIN_SHARE * np.array(areas))))


def _interior(owner: np.ndarray) -> np.ndarray:
    """True off the 2 px borders between owners."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(owner, kernel) == cv2.erode(owner, kernel)


def _random_pose(rng: Generator, size: int, radius: Range, centre: Range) -> Pose:
    """A free rotation and a mild stretch; `radius` and `centre` are ranges in shares of the image side."""
    scale, angle, stretch = rng.uniform(*radius) * size, rng.uniform(0, 2 * np.pi), rng.uniform(0.88, 1.14)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([stretch, 1 / stretch])
    return Pose(matrix, rng.uniform(*centre, 2) * size, scale)


def _background(rng: Generator, size: int) -> np.ndarray:
    """A dull gradient with soft blotches, float32 RGB in 0..1."""
    one, two = _colours(rng, rng.uniform(0, 360, 2), (0, 0.6), (0.25, 0.95))
    angle, span = rng.uniform(0, 2 * np.pi), np.linspace(-0.5, 0.5, size, dtype=np.float32)
    coarse = rng.normal(0, 0.15, (7, 7)).astype(np.float32)
    blotches = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    share = (0.5 + np.cos(angle) * span + np.sin(angle) * span[:, None] + blotches).clip(0, 1)[..., None]
    return one + share * (two - one)


def _paint_clutter(rng: Generator, image: np.ndarray) -> np.ndarray:
    """A dull irregular polygon, now and then textured, in any hues."""
    pose = _random_pose(rng, len(image), (0.1, 0.28), (0, 1))
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    points = _polar(angles, rng.uniform(0.5, 1, len(angles)))
    colours = _colours(rng, rng.uniform(0, 360, 2), (0.1, 0.6), (0.3, 1.0))
    texture = rng.choice(TEXTURES) if rng.random() < 0.3 else None
    return _paint(rng, image, pose, points, texture, colours)


def _paint(rng: Generator, image: np.ndarray, pose: Pose, points: np.ndarray, texture: str | None,
           colours: np.ndarray) -> np.ndarray:  # fmt: skip
    """`image` with the silhouette `points` over it, anti-aliased and shaded across."""
    fixed = np.rint(pose.polygon(points) * 16).astype(np.int32)
    alpha = cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), [fixed], 255, cv2.LINE_AA, shift=4)
    grid = pose.unit_grid(len(image))
    share = _texture(rng, texture, grid, pose.radius) if texture else np.zeros_like(grid[0])
    shade = 1 + rng.uniform(-0.15, 0.15) * grid[0] + rng.uniform(-0.15, 0.15) * grid[1]
    paint = (colours[0] + share[..., None] * (colours[1] - colours[0])) * shade[..., None]
    return image + (alpha / np.float32(255))[..., None] * (paint.clip(0, 1) - image)


def _texture(rng: Generator, kind: str, grid: np.ndarray, radius: float) -> np.ndarray:
    """Share of the second colour, 0..1, with edges about one pixel wide."""
    frequency = 2 * np.pi * rng.uniform(1.5, 2.1)
    u, v = frequency * grid + rng.uniform(0, 2 * np.pi, (2, 1, 1)).astype(np.float32)
    waves = {
        "stripes": lambda: np.sin(u),
        "checks": lambda: np.sin(0.8 * u) * np.sin(0.8 * v),
        "dots": lambda: np.cos(u) + np.cos(v) - 0.7,
        "zigzag": lambda: np.sin(v + 1.6 * np.arcsin(np.sin(0.8 * u))),
        "rings": lambda: np.sin(frequency * np.hypot(*grid) + rng.uniform(0, 2 * np.pi)),
    }
    return (0.5 + waves[kind]() * radius / frequency).clip(0, 1).astype(np.float32)


def _colours(rng: Generator, hues: Iterable[float], saturation: Range, value: Range) -> np.ndarray:
    """Two RGB colours (2, 3), float32 in 0..1, in either order, near the given hues (degrees)."""
    hsv = [[(h + rng.normal(0, 9)) % 360, rng.uniform(*saturation), rng.uniform(*value)] for h in hues]
    return cv2.cvtColor(np.array([rng.permutation(hsv)], np.float32), cv2.COLOR_HSV2RGB)[0]


def _polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


@cache
def _silhouettes() -> dict[str, np.ndarray]:
    """Polygons (points, 2), each centred and scaled into the unit circle."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    body, inner = np.linspace(0.4, 2 * np.pi - 0.4, 40), np.linspace(-1.45, -2 * np.pi + 1.45, 30)
    shapes: dict[str, ArrayLike] = {
        "star": _polar(turn[::6], np.resize([1, 0.45], 10)),
        "gear": _polar(turn[:56] * 60 / 56 - 0.1, np.resize(np.repeat([1, 0.7], [3, 4]), 56)),
        "heart": np.stack([16 * np.sin(turn) ** 3, 13 * np.cos(turn) - 5 * np.cos(2 * turn)
                           - 2 * np.cos(3 * turn) - np.cos(4 * turn)], 1),
        "arrow": [(0, -1), (0.75, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.75, -0.1)],
        "moon": np.concatenate([_polar(np.linspace(0.87, 2 * np.pi - 0.87, 40), np.ones(40)),
                                _polar(inner, np.full(30, 0.772)) + np.array([0.55, 0])]),
        "cross": [(-3, -1), (-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1),
                  (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1)],
        "fish": [*np.stack([np.cos(body), 0.75 * np.sin(body)], 1), (1.6, -0.7), (1.4, 0), (1.6, 0.7)],
        "drop": np.stack([np.cos(turn), np.sin(turn) * np.sin(turn / 2) ** 1.6], 1),
        "bolt": [(0.15, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.3), (0.1, -0.3), (0.5, -1)],
        "house": [(-0.7, 1), (-0.7, 0), (-1, 0), (0, -0.95), (0.35, -0.62), (0.35, -0.95), (0.65, -0.95),
                  (0.65, -0.33), (1, 0), (0.7, 0), (0.7, 1)],
    }  # fmt: skip
    centred = {name: points - (np.min(points, 0) + np.max(points, 0)) / 2  # of the bounding box
               for name, points in shapes.items()}  # fmt: skip
    return {name: points / np.linalg.norm(points, axis=1).max() for name, points in centred.items()}
