"""Image and label map, for base training's ordinary segmentation network."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fss.config import PretrainConfig
from fss.data.canvas import fit, fit_mask
from fss.data.files import read_image
from fss.data.loading import Loadable
from fss.data.source import Source
from fss.data.transforms import flips, random_view, to_tensor
from fss.episode import IGNORE


class Labelled(NamedTuple):
    """Images (B,3,S,S) uint8, labels (B,S,S): 0 background, 1..n the base classes in order, 255.

    `positions` (B,) are those of the images in the split's list.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor


class LabelledSet(Loadable):
    """Items for keys (epoch, position), augmented from the key alone; or, un-augmented, (-1, position).

    Whole images are padded whatever `data.resize` is: a base network learns from crops, and serves both.

    Novel classes are background, as published, unless the source ignores them.
    """

    def __init__(self, source: Source, size: int, config: PretrainConfig, seed: int) -> None:
        self.source, self.size, self.config, self.seed = source, size, config, seed
        self.numbers = {label: i for i, label in enumerate(source.base, 1)}
        self.table = self._table({k: v for k, v in self.numbers.items() if k < IGNORE})

    @staticmethod
    def _table(numbers: dict[int, int]) -> np.ndarray:
        """The label that takes the place of each value of a mask."""
        table = np.zeros(256, np.uint8)
        table[list(numbers)] = list(numbers.values())
        table[IGNORE] = IGNORE
        return table

    def load(self, key: tuple[int, int]) -> Labelled:
        """One image with its labels, without batch axis."""
        epoch, position = key
        image = read_image(self.source.samples[position].image)
        own = self.source.samples[position].label
        table = self.table if own is None else self._table({1: self.numbers.get(own, 0)})
        labels = table[self.source.mask(position)]
        if epoch < 0:
            image, labels = fit(image, self.size), fit_mask(labels, self.size)
        else:
            image, labels = self._augment(image, labels, np.random.default_rng([self.seed, epoch, position]))
        return Labelled(to_tensor(image), torch.from_numpy(labels).long(), torch.tensor(position))

    def _augment(
        self, image: np.ndarray, labels: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.config.view == "whole":  # flipped first, so that padding stays where tests have it
            image, labels = self._flipped(image, labels, random)
            return fit(image, self.size), fit_mask(labels, self.size)
        size = self.config.crop or self.size
        image, labels, _ = random_view(image, labels, size, self.config.scale, self.config.rotate, random)
        return self._flipped(image, labels, random)

    def _flipped(
        self, image: np.ndarray, labels: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.config.vertical_flip:
            return flips(image, labels, random)
        if random.random() < 0.5:
            image, labels = image[:, ::-1].copy(), labels[:, ::-1].copy()
        return image, labels


def stack(items: list[Labelled]) -> Labelled:
    """Collate items into a batch."""
    return Labelled(*(torch.stack(parts) for parts in zip(*items, strict=True)))


def epoch_batches(count: int, batch: int, seed: int, start: int = 0) -> Iterator[list[tuple[int, int]]]:
    """Endless batches of keys (epoch, position); batch number `start` comes first.

    Every epoch goes through all images in a new order; what does not fill a batch is left out.
    """
    batch = min(batch, count)
    per_epoch = count // batch
    step = start
    while True:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        chosen = order[place * batch : (place + 1) * batch]
        yield [(epoch, int(position)) for position in chosen]
        step += 1
