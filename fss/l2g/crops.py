"""Places of the local network's crops in an image (L2G, section 3.2)."""

import numpy as np
import torch
from torch import Tensor


def place_crops(placement: str, number: int, size: int, crop: int, random: np.random.Generator) -> np.ndarray:
    """Top left corners (number,2) of crops, x and y in pixels, inside a square image.

    Args:
        placement: "corners": the image's four, the rest at random (published); "random"; "uniform": a grid
            of evenly spaced crops, as square as `number` allows.
        size, crop: sides of image and crops, pixels; crop <= size.

    Raises:
        ValueError: unknown placement.
    """
    free = size - crop
    if placement == "corners":
        corners = np.array([(0, 0), (free, 0), (0, free), (free, free)])[:number]
        return np.concatenate([corners, random.integers(0, free + 1, (number - len(corners), 2))])
    if placement == "random":
        return random.integers(0, free + 1, (number, 2))
    if placement != "uniform":
        raise ValueError(f"placement {placement!r}; allowed: corners, random, uniform")
    rows = max(n for n in range(1, int(number**0.5) + 1) if number % n == 0)
    x, y = (np.linspace(0, free, n) if n > 1 else np.array([free / 2]) for n in (number // rows, rows))
    return np.stack([np.tile(x, rows), np.repeat(y, len(x))], 1).round().astype(int)


def cut(images: Tensor, corners: Tensor, crop: int) -> Tensor:
    """Crops of images (B,C,S,S) at `corners` (B,N,2): (B*N,C,crop,crop), an image's crops in a row."""
    parts = [
        image[:, y : y + crop, x : x + crop]
        for image, own in zip(images, corners.tolist(), strict=True)
        for x, y in own
    ]
    return torch.stack(parts)


def boxes(corners: Tensor, crop: int) -> Tensor:
    """Corners (B,N,2) -> (B*N,5): image index, x1, y1, x2, y2 in image pixels, x2 = x1 + crop."""
    b, n = corners.shape[:2]
    index = torch.arange(b, device=corners.device).repeat_interleave(n)[:, None]
    flat = corners.flatten(0, 1)
    return torch.cat([index, flat, flat + crop], 1).float()
