"""Pyramid pooling: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, https://arxiv.org/abs/1612.01105"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.necks.base import Decoded, Neck
from fss.ops import interpolation_matrix


def _pool(inputs: int, outputs: int, bins: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class PyramidPooling(Neck):
    """Average pools of four sizes beside the map itself, merged by a 3x3 convolution.

    The pools pass through the convolution at their own size: resizing and convolving are both linear,
    so the result is that of the concatenation, at about half the cost.

    Args:
        inputs: channels of the stages.
        channels: of the output.
        dropout: share of channels dropped in training.
        classifier_bias: whether base training's classifier has one. CWT's has none, RePRI's has.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        channels: int = 512,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
        classifier_bias: bool = False,
    ) -> None:
        super().__init__(inputs, channels)
        self.classifier_bias = classifier_bias
        self.map_channels = in_channels = inputs["stage4"]
        self.width = width = in_channels // len(bins)
        self.features = nn.ModuleList(_pool(in_channels, width, b) for b in bins)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(in_channels + len(bins) * width, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.own: nn.Module | None = None  # once settled: the bottleneck's convolution of the map itself,
        self.others: list[Tensor] = []  # and its weights for the pools

    def _split(self) -> list[Tensor]:
        """The weights of the bottleneck's convolution: for the map itself, and for each pool."""
        sizes = [self.map_channels] + [self.width] * len(self.features)
        return list(self.bottleneck[0].weight.split(sizes, 1))  # type: ignore[operator, union-attr]

    def settle(self) -> None:
        """Weights are final: those for the map itself become a module, which may then be computed faster."""
        weight, *self.others = self._split()
        own = nn.Conv2d(self.map_channels, self.channels, 3, padding=1, device="meta")  # draws no numbers
        own.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False)
        own.bias, self.bottleneck[0] = self.bottleneck[0].bias, nn.Identity()  # type: ignore[assignment]
        self.own = own

    def decode(self, features: dict[str, Tensor]) -> Decoded:
        """The map (B,channels,h,w) of {"stage4": (B,C,h,w)}."""
        out = self.before_relu(features)
        for layer in list(self.bottleneck.children())[2:]:
            out = layer(out)
        return Decoded(out, {}, {})

    def before_relu(self, features: dict[str, Tensor]) -> Tensor:
        """The map (B,channels,h,w), normed and not yet activated."""
        x = features["stage4"]
        if self.own:
            out, others = self.own(x), self.others
        else:
            own, *others = self._split()
            out = F.conv2d(x, own, self.bottleneck[0].bias, padding=1)  # type: ignore[arg-type]
        for pool, weight in zip(self.features, others, strict=True):
            out = out + convolve_resized(pool(x), weight, (x.shape[-2], x.shape[-1]))
        return self.bottleneck[1](out)


def convolve_resized(x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """conv3x3(resize(x, size)) with zero padding, without the resized map.

    Each of the nine taps is a 1x1 convolution of the small map; resizing its result and shifting it by
    a pixel are one matrix for each axis.

    Args:
        x: (B,I,b,b'); weight: (O,I,3,3).

    Returns:
        (B,O,*size).
    """
    o, i = weight.shape[:2]
    taps = F.conv2d(x, weight.permute(2, 3, 0, 1).reshape(9 * o, i, 1, 1))  # (B,9O,b,b')
    taps = taps.view(-1, 3, 3, o, *x.shape[-2:]).permute(0, 3, 1, 4, 2, 5)  # (B,O,3,b,3,b')
    down, across = (_shifted(cells, side, x) for cells, side in zip(x.shape[-2:], size, strict=True))
    return down @ taps.flatten(4, 5).flatten(2, 3) @ across.T  # (h,3b) (3b,3b') (3b',w)


def _shifted(cells: int, pixels: int, like: Tensor) -> Tensor:
    """`interpolation_matrix` read one pixel before, at, and after each place, zeros outside."""
    matrix = F.pad(interpolation_matrix(cells, pixels, like.device), (0, 0, 1, 1))  # (pixels+2,cells)
    return torch.cat([matrix[k : k + pixels] for k in range(3)], 1).to(like.dtype)
