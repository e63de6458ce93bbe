"""Planned episodes made into tensors, and the single images that un-augmented episodes share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fss.data.files import read_image
from fss.data.loading import Loadable
from fss.data.plan import Draw
from fss.data.source import Source
from fss.data.transforms import episode_view, fit, fit_mask, flips, normalise, to_tensor
from fss.episode import Episode
from fss.ops import binary_mask

Prepare = Callable[[Tensor, int], dict[str, Tensor]]  # a head's own: masks (K,H,W), seed -> extras


class Picture(NamedTuple):
    """One prepared image.

    Attributes:
        position: in the split's list.
        image: (3,S,S) normalised.
        labels: (S,S) uint8 label map of the data set.
        original: (H,W) uint8 label map at original size, or None if not asked for.
    """

    position: int
    image: Tensor
    labels: Tensor
    original: Tensor | None


class PictureSet(Loadable):
    """Prepared images by position, un-augmented."""

    def __init__(self, source: Source, size: int, originals: bool = False) -> None:
        self.source, self.size, self.originals = source, size, originals

    def load(self, key: int) -> Picture:
        """Read and prepare one image."""
        image, mask = read_image(self.source.samples[key].image), self.source.mask(key)
        labels = torch.from_numpy(fit_mask(mask, self.size))
        original = torch.from_numpy(mask) if self.originals else None
        return Picture(key, normalise(fit(image.astype(np.float32), self.size)), labels, original)


class EpisodeSet(Loadable):
    """Augmented training episodes; a key is a `Draw`, whose seed decides the augmentation too.

    Args:
        prepare: the head's `prepare`.
        augment: "flips", "views" or "none".
    """

    def __init__(self, source: Source, size: int, prepare: Prepare, augment: str = "flips") -> None:
        self.source, self.size, self.prepare, self.augment = source, size, prepare, augment

    def load(self, key: Draw) -> Episode:
        """An episode with B = 1."""
        random = np.random.default_rng([key.seed, 1])
        pairs = [self._picture(i, random) for i in key.images]
        images = to_tensor(np.stack([image for image, _ in pairs]))  # bytes: a quarter of what floats weigh
        class_id = torch.tensor([key.class_id])
        value = torch.tensor([self.source.value(key.class_id)])
        masks = binary_mask(torch.stack([m for _, m in pairs])[None], value)[0]
        extras = {k: v[None] for k, v in self.prepare(masks[1:], key.seed).items()}
        return Episode(
            images[:1], masks[:1], images[None, 1:], masks[None, 1:], class_id, extras, {"draw": [key]}
        )

    def _picture(self, position: int, random: np.random.Generator) -> tuple[np.ndarray, Tensor]:
        """Image (S,S,3) uint8 and label map (S,S)."""
        image, mask = read_image(self.source.samples[position].image), self.source.mask(position)
        if self.augment == "views":
            image, mask = episode_view(image, mask, self.size, random)
            return image, torch.from_numpy(mask)
        if self.augment == "flips":
            image, mask = flips(image, mask, random)
        return fit(image, self.size), torch.from_numpy(fit_mask(mask, self.size))
