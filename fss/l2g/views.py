"""Images with image-level labels as L2G learns from them: one crop of each, and the local crops in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from fss.config import PseudoConfig
from fss.data.files import read_image
from fss.data.image_labels import LabelledImages
from fss.data.loading import Loadable
from fss.data.saliency import read_saliency
from fss.data.transforms import to_tensor
from fss.l2g.crops import place_crops


class Views(NamedTuple):
    """A batch of B images.

    Attributes:
        images: (B,3,S,S) uint8.
        saliency: (B,1,S,S) float32 in 0..1; zeros where there is none.
        known: (B,) bool, which have saliency.
        corners: (B,N,2) of the local crops, x and y in pixels.
        labels: (B,C) float32 of 0 and 1.
        positions: (B,) in the list.
    """

    images: Tensor
    saliency: Tensor
    known: Tensor
    corners: Tensor
    labels: Tensor
    positions: Tensor


class ViewSet(Loadable):
    """Items for keys (epoch, position), augmented from the key alone; or, (-1, position), the middle crop."""

    def __init__(
        self, source: LabelledImages, saliency: Sequence[Path | None] | None, config: PseudoConfig, seed: int
    ) -> None:  # fmt: skip
        self.source, self.saliency, self.config, self.seed = source, saliency, config, seed

    def load(self, key: tuple[int, int]) -> Views:
        """One image, without batch axis."""
        epoch, position = key
        c, random = self.config, np.random.default_rng([self.seed, max(epoch, 0), position])
        image = _shorter(read_image(self.source.samples[position].image), c.resize, Image.Resampling.BICUBIC)
        path = self.saliency[position] if self.saliency else None
        salient = _shorter(read_saliency(path), c.resize, Image.Resampling.NEAREST) if path else None
        free = np.array(image.shape[:2]) - c.crop
        top, left = free // 2 if epoch < 0 else random.integers(0, free + 1)
        window = np.s_[top : top + c.crop, left : left + c.crop]
        image = image[window]
        salient = np.zeros(image.shape[:2], np.float32) if salient is None else salient[window]
        if epoch >= 0 and c.flip and random.random() < 0.5:
            image, salient = image[:, ::-1], salient[:, ::-1]
        tensor = to_tensor(np.ascontiguousarray(image))
        return Views(
            images=tensor if epoch < 0 else colour_jitter(tensor, c.jitter, random),
            saliency=torch.from_numpy(np.ascontiguousarray(salient))[None],
            known=torch.tensor(path is not None),
            corners=torch.from_numpy(place_crops(c.placement, c.local_crops, c.crop, c.local_crop, random)),
            labels=torch.from_numpy(self.source.present[position]).float(),
            positions=torch.tensor(position),
        )


def _shorter(image: np.ndarray, size: int, method: Image.Resampling) -> np.ndarray:
    """An image (H,W,...) with its shorter side resized to `size`."""
    h, w = image.shape[:2]
    wanted = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)  # w, h
    return np.asarray(Image.fromarray(image).resize(wanted, method))


def colour_jitter(image: Tensor, strength: Sequence[float], random: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation by factors in 1 +- strength, hue by +- strength turns, in
    random order; image (3,H,W) uint8."""
    low = [max(1 - s, 0) for s in strength[:3]]
    factors = [random.uniform(a, 1 + s) for a, s in zip(low, strength[:3], strict=True)]
    factors.append(random.uniform(-strength[3], strength[3]))
    changes = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue)
    for i in random.permutation(4):
        if strength[i]:
            image = changes[i](image, float(factors[i]))
    return image


def stack(items: list[Views]) -> Views:
    """Collate items into a batch."""
    return Views(*(torch.stack(parts) for parts in zip(*items, strict=True)))
