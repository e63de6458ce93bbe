"""Planned episodes made into tensors, and the single images that un-augmented episodes share."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fss.data.canvas import Canvas
from fss.data.files import read_image
from fss.data.loading import Loadable
from fss.data.plan import Draw
from fss.data.source import Source
from fss.data.transforms import View, episode_view, flips, to_tensor, whole_view
from fss.episode import Episode
from fss.ops import binary_mask


class Picture(NamedTuple):
    """One prepared image.

    Attributes:
        position: in the split's list.
        image: (3,S,S) float32 RGB of 0..255.
        labels: (S,S) uint8 label map of the data set.
        photo: (h,w) of the canvas that the image fills, from the top left.
        original: (H,W) uint8 label map at original size, or None if not asked for.
    """

    position: int
    image: Tensor
    labels: Tensor
    photo: tuple[int, int]
    original: Tensor | None


def photo_mask(filled: tuple[int, int], size: int) -> Tensor:
    """(S,S) bool: True in the (h,w) at the top left that a photo fills of its canvas."""
    out = torch.zeros(size, size, dtype=torch.bool)
    out[: filled[0], : filled[1]] = True
    return out


class PictureSet(Loadable):
    """Prepared images by position, un-augmented."""

    def __init__(self, source: Source, canvas: Canvas, originals: bool = False) -> None:
        self.source, self.canvas, self.originals = source, canvas, originals

    def load(self, key: int) -> Picture:
        """Read and prepare one image."""
        image, mask = read_image(self.source.samples[key].image), self.source.mask(key)
        labels = torch.from_numpy(self.canvas.mask(mask))
        original = torch.from_numpy(mask) if self.originals else None
        prepared = to_tensor(self.canvas.image(image.astype(np.float32)))
        return Picture(key, prepared, labels, self.canvas.filled(*mask.shape), original)


class EpisodeSet(Loadable):
    """Augmented training episodes; a key is a `Draw`, whose seed decides the augmentation too.

    Args:
        augment: "flips", "views", "whole_views" or "none".
        scale: range of the views' factors.
    """

    def __init__(
        self, source: Source, canvas: Canvas, augment: str = "flips", scale: tuple[float, float] = (0.9, 1.1)
    ) -> None:
        self.source, self.canvas, self.augment, self.scale = source, canvas, augment, scale

    def load(self, key: Draw) -> Episode:
        """An episode with B = 1."""
        random = np.random.default_rng([key.seed, 1])
        value = self.source.value(key.class_id)
        views = [self._view(i, value, random) for i in key.images]
        images = to_tensor(np.stack([view.image for view in views]))  # bytes: a quarter of what floats weigh
        class_id = torch.tensor([key.class_id])
        labels = torch.stack([torch.from_numpy(view.mask) for view in views])
        masks = binary_mask(labels[None], torch.tensor([value]))[0]
        photo = torch.from_numpy(views[0].photo)[None]
        base_class = torch.tensor([self.source.base_number(key.class_id)])
        return Episode(
            images[:1],
            masks[:1],
            images[None, 1:],
            masks[None, 1:],
            class_id,
            photo,
            base_class,
            {"draw": [key]},
        )

    def _view(self, position: int, value: int, random: np.random.Generator) -> View:
        """An image and its label map, augmented, S x S; `value` is the class's in it."""
        image, mask = read_image(self.source.samples[position].image), self.source.mask(position)
        if self.augment == "views":
            return episode_view(image, mask, self.canvas.size, random, value, self.scale)
        if self.augment == "whole_views":
            view = whole_view(image, mask, random, self.scale)
            photo = self.canvas.mask(view.photo.astype(np.uint8)) == 1  # 255 is padding
            return View(self.canvas.image(view.image), self.canvas.mask(view.mask), photo)
        if self.augment == "flips":
            image, mask = flips(image, mask, random)
        filled = photo_mask(self.canvas.filled(*mask.shape), self.canvas.size)
        return View(self.canvas.image(image), self.canvas.mask(mask), filled.numpy())
