"""Pyramid pooling: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, https://arxiv.org/abs/1612.01105"""

import torch
from torch import Tensor, nn

from fss.ops import resize


def _pool(inputs: int, outputs: int, bins: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class PyramidPooling(nn.Module):
    """Average pools of four sizes beside the map itself, merged by a 3x3 convolution.

    Args:
        in_channels: of stage 4.
        channels: of the output.
        dropout: share of channels dropped in training.
    """

    levels = ("stage4",)

    def __init__(
        self,
        in_channels: int,
        channels: int = 512,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = channels
        width = in_channels // len(bins)
        self.features = nn.ModuleList(_pool(in_channels, width, b) for b in bins)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(in_channels + len(bins) * width, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{"stage4": (B,C,h,w)} -> (B,channels,h,w)."""
        x = features["stage4"]
        size = (x.shape[-2], x.shape[-1])
        pooled = [resize(pool(x), size) for pool in self.features]
        return self.bottleneck(torch.cat([x, *pooled], 1))
