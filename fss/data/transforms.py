"""The augmentations of training."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from fss.episode import IGNORE
from fss.ops import MEAN

OBJECT_SHARE = 0.85  # of the class's pixels, in a crop, as in PFENet, ASGNet and BAM
REDRAWS = 31  # of a crop, at most


def to_tensor(image: np.ndarray) -> Tensor:
    """(...,H,W,3) -> (...,3,H,W), the same memory."""
    return torch.from_numpy(image).movedim(-1, -3)


def flips(image: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """CWT's augmentation: left-right and upside-down, each with probability 0.5."""
    for axis in (1, 0):
        if random.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


class View(NamedTuple):
    """An image as training sees it: (S,S,3) uint8, its mask (S,S) uint8, and where it is photo (S,S) bool.

    Of a view of the whole image, all are of its own size.
    """

    image: np.ndarray
    mask: np.ndarray
    photo: np.ndarray


def whole_view(
    image: np.ndarray, mask: np.ndarray, random: np.random.Generator, scale: tuple[float, float] = (0.9, 1.1)
) -> View:
    """HDMNet's augmentation: `episode_view` without its crop, at the image's scaled size (H,W).

    What a rotation brings in is the mean colour, in the mask 255, as in a crop.
    """
    turn, factor = _drawn_turn(scale, _degrees(random), random)
    h, w = (max(round(side * factor), 1) for side in mask.shape)
    return _blurred_and_flipped(_warped(image, mask, turn, np.array([w / 2, h / 2]), (w, h)), random)


def episode_view(
    image: np.ndarray, mask: np.ndarray, size: int, random: np.random.Generator, value: int | None = None,
    scale: tuple[float, float] = (0.9, 1.1),
) -> View:  # fmt: skip
    """ASGNet's augmentation: a scale, with probability 0.5 each +-10 degrees, blur and left-right flip, and a
    random crop S x S that keeps the class `value`; arguments and returns as of `random_view`."""
    return _blurred_and_flipped(
        random_view(image, mask, size, scale, _degrees(random), random, value), random
    )


def _degrees(random: np.random.Generator) -> float:
    """The most that an image is rotated, either way: half of them not at all."""
    return 10.0 if random.random() < 0.5 else 0.0


def _blurred_and_flipped(view: View, random: np.random.Generator) -> View:
    """Each with probability 0.5."""
    if random.random() < 0.5:
        view = view._replace(image=cv2.GaussianBlur(view.image, (5, 5), 0))
    if random.random() < 0.5:
        view = View(*(np.flip(part, 1) for part in view))
    return View(*map(np.ascontiguousarray, view))


def random_view(
    image: np.ndarray, mask: np.ndarray, size: int, scale: tuple[float, float], rotate: float,
    random: np.random.Generator, value: int | None = None,
) -> View:  # fmt: skip
    """Scale, rotate and crop S x S in one warp, so that pixels are interpolated once.

    Args:
        scale: range of factors on the image's own size, drawn log-uniformly.
        rotate: most degrees either way.
        value: of a class in the mask of which the crop keeps `OBJECT_SHARE`, if one of `REDRAWS` does.

    Returns:
        the image padded with the mean colour, the mask with 255.
    """
    h, w = mask.shape
    turn, factor = _drawn_turn(scale, rotate, random)
    # The window slides over what the scaled image overhangs, or the image over the window's slack.
    slack = np.abs(np.array([w, h]) * factor - size) / 2
    centre = _crop(_places(mask, value, turn), slack, size, random)
    return _warped(image, mask, turn, centre, (size, size))


def _drawn_turn(
    scale: tuple[float, float], rotate: float, random: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A rotation times a factor (2,2), and the factor."""
    factor = float(np.exp(random.uniform(np.log(scale[0]), np.log(scale[1]))))
    angle = np.deg2rad(random.uniform(-rotate, rotate))
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]), factor


def _warped(
    image: np.ndarray, mask: np.ndarray, turn: np.ndarray, centre: np.ndarray, size: tuple[int, int]
) -> View:
    """An image and its mask through `turn` about its middle, which comes to `centre`, x and y.

    Args:
        size: (w,h) of the view.
    """
    h, w = mask.shape
    middle = np.array([w / 2, h / 2])
    matrix = np.column_stack([turn, centre - turn @ middle])
    mean = tuple(255 * m for m in MEAN)
    view = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=mean)
    labels = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(IGNORE,))
    inside = cv2.warpAffine(np.ones((h, w), np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return View(view, labels, inside.astype(np.bool_))


def _places(mask: np.ndarray, value: int | None, turn: np.ndarray) -> np.ndarray:
    """(2,n) x and y of a class's pixels from the image's middle, scaled and turned; n = 0 for None."""
    if value is None:
        return np.empty((2, 0), np.float32)
    y, x = (
        places.astype(np.float32) - np.float32(side / 2)
        for places, side in zip(np.nonzero(mask == value), mask.shape, strict=True)
    )
    return turn.astype(np.float32) @ np.stack([x, y])


def _crop(places: np.ndarray, slack: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """(x,y) of an image's middle in its crop: drawn until enough of the places are in it, else the last draw.

    Args:
        places: (2,n), as of `_places`.
        slack: (2,), how far the middle may lie from the crop's, either way.
    """
    for _ in range(1 + REDRAWS):
        centre = size / 2 + random.uniform(-slack, slack)
        low = (-0.5 - centre).astype(np.float32)  # a pixel is in where its middle is
        across, down = ((line >= a) & (line < a + size) for line, a in zip(places, low, strict=True))
        if np.count_nonzero(across & down) >= OBJECT_SHARE * places.shape[1]:
            break
    return centre
