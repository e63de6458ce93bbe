"""What a neck is: the contract that base training, model and pictures rely on, and all they know of it."""

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import UserError


class Decoded(NamedTuple):
    """What a neck makes of a backbone's features.

    Attributes:
        map: (B,C,h,w) at the neck's own resolution, normed and activated, under the classifier.
        sides: maps (B,C,h',w') of the auxiliary classifiers, by name.
        offsets: (B,2,h,w), x then y, in cells of the map: from where each place was sampled; by title.
    """

    map: Tensor
    sides: dict[str, Tensor]
    offsets: dict[str, Tensor]


class Neck(nn.Module):
    """Base class of all necks. A neck takes plain keyword arguments; `inputs` comes from the backbone.

    Attributes:
        levels: feature maps it needs, of "stage1".."stage4".
        channels: of its map.
        stride: pixels from one cell of the map that heads get to the next, at least; None for the neck's own.
        shrink: cells of its own map to one of the map that heads get, 1 or 2.
        side_weight: of each auxiliary loss.
        classifier_bias: whether base training's classifier on it has one, as published with it.
    """

    levels: tuple[str, ...] = ("stage4",)
    stride: int | None = None
    shrink = 1
    side_weight = 0.4
    classifier_bias = False

    def __init__(self, inputs: Mapping[str, int], channels: int) -> None:
        """Take `inputs`: stage -> C, for "stage1".."stage4"."""
        super().__init__()
        self.inputs, self.channels = dict(inputs), channels

    def settle_on(self, strides: Mapping[str, int]) -> None:
        """Learn the strides of the backbone's stages: a neck whose finest map is finer than `stride`
        halves it."""
        own = min((strides.get(level, 4) for level in self.levels), default=4)
        self.shrink = 2 if self.stride is not None and self.stride >= 2 * own else 1

    def decode(self, features: dict[str, Tensor]) -> Decoded:
        """{level: (B,C,h,w)} -> everything: what base training learns from."""
        raise NotImplementedError(f"{type(self).__name__} must define decode")

    def before_relu(self, features: dict[str, Tensor]) -> Tensor:
        """The map of `decode` before its last ReLU, for heads on "neck:sum"; not every neck offers it.

        Raises:
            UserError: this one does not.
        """
        raise UserError(
            f"{type(self).__name__} does not offer its map before the last ReLU; take neck.type=ppm"
        )

    def side_classifiers(self, classes: int) -> dict[str, nn.Module]:
        """Auxiliary classifiers by the name of their side; each gives logits (B,classes,h,w)."""
        return {}

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{level: (B,C,h,w)} -> the map (B,channels,h,w) that heads get."""
        return average(self.decode(features).map, self.shrink)


def average(x: Tensor, shrink: int) -> Tensor:
    """Every second cell (B,C,h,w) -> (B,C,h',w'), each the mean of the 3x3 around it; 1 changes nothing.

    The cells that stay lie where a convolution of stride 2 puts them, so that corners stay corners.
    """
    return x if shrink == 1 else F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
