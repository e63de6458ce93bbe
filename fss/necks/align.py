"""Maps of two resolutions brought together where they belong: learned offsets and the resampling by them.

Huang, Wei, Wang, Liu, Huang, Shi, "AlignSeg: Feature-Aligned Segmentation Networks", TPAMI 2021,
https://arxiv.org/abs/2003.00872; Li, You, Zhu, Zhao, Yang, Yang, Tan, Tong, "Semantic Flow for Fast and
Accurate Scene Parsing", ECCV 2020, https://arxiv.org/abs/2002.10120.

Offsets and grids are float32 whatever the network is computed in: eight bits of bfloat16 would place a
sample among 119 cells to half a cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.ops import resize


def conv(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """A convolution of 1x1 or 3x3 that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def activated(channels: int) -> list[nn.Module]:
    """AlignSeg's activated norm. A list, so that the norm stands beside the convolution it folds into."""
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(0.01, inplace=True)]


def rectified(channels: int) -> list[nn.Module]:
    """SFNet's norm and activation."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def size_of(x: Tensor) -> tuple[int, int]:
    """(h, w) of a map (...,h,w)."""
    return x.shape[-2], x.shape[-1]


def exact(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer` on `x` in float32, whatever format both have."""
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.float(), layer.weight.float(), padding=layer.padding)


def resample(x: Tensor, offset: Tensor) -> Tensor:
    """Bilinear samples of `x`, stretched corner to corner over a grid, at the grid's places + `offset`.

    Args:
        x: (B,C,h,w) of any size and format.
        offset: (B,2,H,W) float32, x then y, in cells of the grid (H,W).

    Returns:
        (B,C,H,W) in the format of `x`; zeros where a sample lies outside. Zero offsets are `resize`.
    """
    height, width = size_of(offset)
    down = torch.linspace(-1, 1, height, device=x.device)
    across = torch.linspace(-1, 1, width, device=x.device)
    base = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)  # (H,W,2)
    cell = offset.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])  # cells to a grid unit
    with torch.autocast(x.device.type, enabled=False):
        grid = base + offset.float().movedim(1, -1) / cell  # (B,H,W,2)
        out = F.grid_sample(x.float(), grid, "bilinear", "zeros", align_corners=True)
    return out.to(x.dtype)


class OffsetBranch(nn.Module):
    """1x1 convolution, activated norm, 3x3 convolution to two channels, which start at zero (AlignSeg)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(conv(2 * width, width, 1), *activated(width))
        self.last = conv(width, 2, 3)
        nn.init.zeros_(self.last.weight)

    def forward(self, pair: Tensor) -> Tensor:
        """Two maps, concatenated (B,2C,h,w) -> offsets (B,2,h,w) float32, in cells."""
        return exact(self.last, self.hidden(pair))


class AlignedAggregation(nn.Module):
    """AlignSeg's aligned feature aggregation: both maps are moved before they are added.

    Args:
        width: C of both maps.
        align: without, offsets are zero: the coarse map is resized and added.
    """

    def __init__(self, width: int, align: bool = True) -> None:
        super().__init__()
        self.coarse = OffsetBranch(width) if align else None
        self.fine = OffsetBranch(width) if align else None

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fine (B,C,h,w) and coarse (B,C,h',w') -> their sum (B,C,h,w); offsets of coarse and fine."""
        coarse = resize(coarse, size_of(fine))
        if self.coarse is None or self.fine is None:
            return fine + coarse, []
        pair = torch.cat([fine, coarse], 1)
        offsets = [self.coarse(pair), self.fine(pair)]
        return resample(coarse, offsets[0]) + resample(fine, offsets[1]), offsets


class AlignedContext(nn.Module):
    """AlignSeg's aligned context: the map pooled to 3x3 cells, laid over the map where it belongs.

    Args:
        inputs: channels of stage 4; width: of the result.
        align: without, the pooled map is resized and added.
    """

    def __init__(self, inputs: int, width: int, align: bool = True) -> None:
        super().__init__()
        self.own, self.pooled = self._branch(inputs, width), self._branch(inputs, width)
        self.offset = OffsetBranch(width) if align else None

    @staticmethod
    def _branch(inputs: int, width: int) -> nn.Sequential:
        wide = [conv(inputs, inputs, 1), *activated(inputs)]
        return nn.Sequential(*wide, conv(inputs, width, 3), *activated(width))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B,inputs,h,w) -> (B,width,h,w); the pooled map's offsets."""
        own, pooled = self.own(x), self.pooled(F.adaptive_avg_pool2d(x, 3))  # (B,C,h,w), (B,C,3,3)
        large = resize(pooled, size_of(own))
        if self.offset is None:
            return own + large, []
        offset = self.offset(torch.cat([own, large], 1))
        return own + resample(pooled, offset), [offset]


class FlowAlignment(nn.Module):
    """SFNet's flow alignment: a flow field from both maps moves the coarse one.

    Args:
        width: C of both maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine, self.coarse = conv(width, width // 2, 1), conv(width, width // 2, 1)
        self.flow = conv(width // 2 * 2, 2, 3)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Fine (B,C,h,w) and coarse (B,C,h',w') -> the coarse one at (h,w); its offsets."""
        small = resize(self.coarse(coarse), size_of(fine))
        offset = in_cells(exact(self.flow, torch.cat([small, self.fine(fine)], 1)))
        return resample(coarse, offset), offset


def in_cells(flow: Tensor) -> Tensor:
    """SFNet's flow (B,2,H,W), which divided by (W,H) gives units of the grid, in cells."""
    height, width = size_of(flow)
    scale = flow.new_tensor([max(width - 1, 1) / (2 * width), max(height - 1, 1) / (2 * height)])
    return flow * scale[:, None, None]
