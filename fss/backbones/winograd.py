"""3x3 convolutions with 16 products for each 2x2 outputs in place of 36.

Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4, F(2x2,3x3),
https://arxiv.org/abs/1509.09308
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn

# Measured: what is smaller gains nothing, since its time goes into the transforms.
_CHANNELS, _OUTPUTS, _CELLS = 256, 64, 1024
_WIDE = 1024  # maps of so many channels gain at any number of cells


class Winograd(nn.Module):
    """A 3x3 convolution that keeps the size of its maps, for a CPU and weights that will not change.

    Exact but for rounding; in bfloat16 about twice as far from float32's result as a plain convolution is.

    Args:
        conv: see `suits`.
    """

    tiles: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.dilation = conv, int(conv.dilation[0])
        self.least = _CELLS if conv.in_channels < _WIDE else 0
        columns = conv.weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]).float()
        tiles = torch.einsum("ay,oiyx,bx->abio", columns, conv.weight.float(), columns)
        self.register_buffer("tiles", tiles.flatten(0, 1).to(conv.weight.dtype), persistent=False)  # (16,I,O)

    def forward(self, x: Tensor) -> Tensor:
        """(B,I,h,w) -> (B,O,h,w). One image after another, so that what is in work stays small."""
        if x.shape[-2] * x.shape[-1] < self.least:
            return self.conv(x)
        return torch.stack([self._one(image) for image in x.permute(0, 2, 3, 1)]).permute(0, 3, 1, 2)

    def _one(self, x: Tensor) -> Tensor:
        """(h,w,I) -> (h,w,O). A dilated convolution is one of each of its d x d interleaved maps."""
        (h, w, i), d = x.shape, self.dilation
        bias = 0.0 if self.conv.bias is None else self.conv.bias
        down, across = (-(-side // (2 * d)) for side in (h, w))  # tiles of an interleaved map
        maps = x.new_zeros(d, d, 2 * down + 2, 2 * across + 2, i)
        places = [(r, c) for r in range(min(d, h)) for c in range(min(d, w))]
        for r, c in places:
            cells = x[r::d, c::d]
            maps[r, c, 1 : 1 + cells.shape[0], 1 : 1 + cells.shape[1]] = cells
        found = self._tiled(maps.flatten(0, 1), down, across).unflatten(0, (d, d))
        out = x.new_empty(h, w, found.shape[-1])
        for r, c in places:
            cells = out[r::d, c::d]
            torch.add(found[r, c, : cells.shape[0], : cells.shape[1]], bias, out=cells)
        return out

    def _tiled(self, x: Tensor, down: int, across: int) -> Tensor:
        """Maps (N,2*down+2,2*across+2,I) rimmed by zeros -> (N,2*down,2*across,O). Tiles overlap by two."""
        n, i = len(x), x.shape[-1]
        tiles = x.new_empty(4, 4, n, down, across, i)
        for k, (first, second, sign) in enumerate(_pairs(x, 1, down)):
            cells = torch.add(first, second, alpha=sign)
            for tile, (left, right, sign) in zip(tiles[k], _pairs(cells, 2, across), strict=True):
                torch.add(left, right, alpha=sign, out=tile)
        products = torch.bmm(tiles.view(16, -1, i), self.tiles).view(4, 4, n, down, across, -1)
        out = x.new_empty(n, down, 2, across, 2, products.shape[-1])
        for k, row in enumerate(_merged(products)):
            out[:, :, k, :, 0], out[:, :, k, :, 1] = _merged(row)
        return out.view(n, 2 * down, 2 * across, -1)


def _pairs(x: Tensor, axis: int, tiles: int) -> list[tuple[Tensor, Tensor, int]]:
    """The four sums of two that a tile's four cells c along an axis enter: c0-c2, c1+c2, c2-c1, c1-c3."""
    c = [x.narrow(axis, k, 2 * tiles - 1)[(slice(None),) * axis + (slice(None, None, 2),)] for k in range(4)]
    return [(c[0], c[2], -1), (c[1], c[2], 1), (c[2], c[1], -1), (c[1], c[3], -1)]


def _merged(m: Tensor) -> tuple[Tensor, Tensor]:
    """Four products along the first axis -> a tile's two outputs."""
    middle = m[1] - m[2]
    return m[0] + (m[1] + m[2]), middle - m[3]


def suits(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that `Winograd` computes faster, on maps that are large enough."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.weight.device.type == "cpu"
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == conv.dilation
        and (conv.dilation == (1, 1) or conv.weight.dtype == torch.bfloat16)  # float32: no gain, measured
        and conv.dilation[0] == conv.dilation[1]
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels >= _CHANNELS
        and conv.out_channels >= _OUTPUTS
    )
