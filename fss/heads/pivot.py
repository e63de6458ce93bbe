"""Center-pivot 4D convolutions, and the squeeze of correlations that they build.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021,
https://arxiv.org/abs/2104.01538

A 4D map relates every cell of a query's map (h,w) to every cell of a support's (u,v). It lies in memory as
(B,h,w,u,v,C), so that what slides over the support needs no copy of it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.ops import exporting, resize

WIDTHS = (16, 64, 128)  # channels of the three blocks of a squeeze
_VALUES = 2**21  # correlations that are held at once


class Box(NamedTuple):
    """Rows `top` to `bottom` - 1 and columns `left` to `right` - 1."""

    top: int
    bottom: int
    left: int
    right: int


class CenterPivot(nn.Module):
    """A 4D convolution whose kernel is zero where neither the query's nor the support's offset is the centre.

    That is the sum of two 2D convolutions: `conv1` over the query's axes, at every s-th row and column of the
    support alone, and `conv2` over the support's axes with stride s ("center-pivot 4D convolution").

    Args:
        kernel: side of both, odd.
        stride: s; the query's axes keep their size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.pad = kernel, stride, kernel // 2
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, padding=self.pad)
        self.conv2 = nn.Conv2d(inputs, outputs, kernel, stride, padding=self.pad)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,u,v,C) -> (B,h,w,ceil(u/s),ceil(v/s),O)."""
        return self._over_query(x[:, :, :, :: self.stride, :: self.stride]) + self._over_support(x)

    def _over_query(self, x: Tensor) -> Tensor:
        b, h, w, u, v, _ = x.shape
        cells = x.permute(0, 3, 4, 1, 2, 5).flatten(0, 2)  # (Buv,h,w,C)
        return _conv(self.conv1, cells).view(b, u, v, h, w, -1).permute(0, 3, 4, 1, 2, 5)

    def _over_support(self, x: Tensor) -> Tensor:
        b, h, w, u, v, _ = x.shape
        if self.stride == 1 and self.kernel == 3 and max(u, v) <= 2:
            return (x.flatten(3) @ self._matrix(u, v)).view(b, h, w, u, v, -1) + self.conv2.get_parameter(
                "bias"
            )
        return _conv(self.conv2, x.flatten(0, 2)).unflatten(0, (b, h, w))

    def _bias(self) -> Tensor:
        return self.conv1.get_parameter("bias") + self.conv2.get_parameter("bias")

    def _matrix(self, u: int, v: int) -> Tensor:
        """`conv2` on a support of at most 2 x 2 cells, where every output sees every input: (uvC,uvO)."""
        weight = torch.stack([self.conv2.weight[:, :, 1 - i : 1 - i + u] for i in range(u)])  # (u,O,C,u',3)
        weight = torch.stack([weight[..., 1 - j : 1 - j + v] for j in range(v)], 1)  # (u,v,O,C,u',v')
        return weight.permute(4, 5, 3, 0, 1, 2).reshape(u * v * weight.shape[3], -1)

    def of_features(self, query: Sequence[Tensor], support: Sequence[Tensor], box: Box) -> Tensor:
        """The convolution of one pass's correlations, which are never all held at once.

        Args:
            query: n maps (C,h,w), cells of length 1.
            support: n maps (C,u,v), cells of length 1 or less; 0 off the object.
            box: the outputs that the object reaches; all others are the biases.

        Returns:
            (h,w,ceil(u/s),ceil(v/s),O).
        """
        h, w = query[0].shape[-2:]
        s, p, (top, bottom, left, right) = self.stride, self.pad, box
        rows = slice(top * s, (bottom - 1) * s + self.kernel)
        columns = slice(left * s, (right - 1) * s + self.kernel)
        cut = [F.pad(x, (p, p, p, p))[:, rows, columns] for x in support]  # n of (C,u',v')
        cells = [x.flatten(1).mT for x in query]  # n of (hw,C)
        pivots = [x[:, p : x.shape[1] - p : s, p : x.shape[2] - p : s] for x in cut]
        own = correlations(cells, pivots).permute(2, 3, 1, 0).unflatten(3, (h, w))  # (a,b,n,h,w)
        own = F.conv2d(own.flatten(0, 1), self.conv1.weight, padding=p)  # (ab,O,h,w)
        out = self._in_parts(cells, cut) + own.flatten(2).permute(2, 1, 0).unflatten(2, pivots[0].shape[1:])
        size = [(x - 1) // s + 1 for x in support[0].shape[-2:]]
        out = F.pad(out, (left, size[1] - right, top, size[0] - bottom))  # (hw,O,a',b')
        return (out + self._bias()[:, None, None]).permute(0, 2, 3, 1).unflatten(0, (h, w))

    def reach(self, inside: Tensor) -> Box:
        """The outputs that an object reaches; the first one where there is none.

        Args:
            inside: its cells (u,v), bool.
        """
        s, p = self.stride, self.pad
        ends = []
        for line in (inside.any(1), inside.any(0)):
            places = line.nonzero().flatten().tolist() or [0]
            last = (len(line) - 1) // s + 1
            ends += [max(0, -((p - places[0]) // s)), min(last, (places[-1] + p) // s + 1)]
        return Box(*ends)

    def _in_parts(self, query: list[Tensor], support: list[Tensor]) -> Tensor:
        """`conv2`, without padding and bias, of some query cells after others: (hw,O,a,b).

        Correlations have no gradient: for the weights' they are computed once more.
        """

        def part(*cells: Tensor) -> Tensor:
            return F.conv2d(correlations(cells, support), self.conv2.weight, stride=self.stride)

        if not (torch.is_grad_enabled() and self.conv2.weight.requires_grad):
            return torch.cat([part(*cells) for cells in _parts(query, support)])
        again: Any = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(part, *cells, **again) for cells in _parts(query, support)])


@torch.no_grad()
def correlations(query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """Cosines, negative ones 0, of n maps: cells (Q,C) with maps (C,u,v) -> (Q,n,u,v)."""
    each = [q.float() @ s.float().flatten(1) for q, s in zip(query, support, strict=True)]  # n of (Q,uv)
    return torch.stack(each, 1).clamp_(min=0).unflatten(2, support[0].shape[1:])


def likeness(query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """Mean correlation of n maps with the support's cell where it is best: (C,h,w), (C,u,v) -> (h,w)."""
    cells = [x.flatten(1).mT for x in query]
    best = [correlations(part, support).mean(1).amax((1, 2)) for part in _parts(cells, support)]
    return torch.cat(best).unflatten(0, query[0].shape[-2:]).clamp(max=1)


def _parts(query: Sequence[Tensor], support: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Cells n x (Q,C) in groups whose correlations with the support are few enough; in a graph, all."""
    at_once = max(1, _VALUES // (len(query) * support[0][0].numel()))
    groups = [(x,) if exporting() else x.split(at_once) for x in query]
    return zip(*groups, strict=True)


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of what has its channels last: (N,h,w,C) -> (N,h',w',O)."""
    return cast(Tensor, conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).contiguous()


class Blocks(nn.Sequential):
    """Three times: center-pivot convolution, group norm over the 4D map, ReLU.

    Args:
        inputs: channels; widths: those of the three outputs.
        strides: over the support, three; the kernel is 5 for 4, else 3.
    """

    def __init__(self, inputs: int, widths: Sequence[int], strides: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width, stride in zip(widths, strides, strict=True):
            layers += [CenterPivot(inputs, width, 5 if stride == 4 else 3, stride), nn.GroupNorm(4, width)]
            layers += [nn.ReLU(inplace=True)]
            inputs = width
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,u,v,C) -> (B,h,w,u',v',O)."""
        return self._on(x, 0)

    def of_features(self, query: Sequence[Tensor], support: Sequence[Tensor], inside: Tensor) -> Tensor:
        """The blocks on the correlations of B passes.

        Args:
            query, support: n maps (B,C,h,w) and (B,C,u,v), as of `CenterPivot.of_features`.
            inside: the objects' cells (B,u,v), bool.

        Returns:
            (B,h,w,u',v',O).
        """
        first = cast(CenterPivot, self[0])
        passes = [
            first.of_features([q[i] for q in query], [s[i] for s in support], first.reach(mask))
            for i, mask in enumerate(inside)
        ]
        return self._on(torch.stack(passes), 1)

    def _on(self, x: Tensor, done: int) -> Tensor:
        """All layers but the first `done`."""
        for layer in list(self)[done:]:
            x = layer(x) if isinstance(layer, CenterPivot) else _flat(layer, x)
        return x


def _flat(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that knows a batch, channels and cells alone, on a map (B,h,w,u,v,C)."""
    b, h, w, u, v, c = x.shape
    cells = x.reshape(b, h * w, u * v, c).permute(0, 3, 1, 2)  # (B,C,hw,uv), channels last
    return cast(Tensor, layer(cells)).permute(0, 2, 3, 1).reshape(b, h, w, u, v, c)


class Squeeze(Blocks):
    """Correlations of the n blocks of a stage -> 128 channels, one cell of the support to 256 pixels.

    Args:
        pixels: stride of the stage's maps; 8, 16 and 32 give the published kernels and strides.
    """

    def __init__(self, n: int, pixels: int) -> None:
        fours = min(max(round(math.log2(32 / pixels)), 0), 3)
        super().__init__(n, WIDTHS, [4] * fours + [2] * (3 - fours))


class Mix(Blocks):
    """Three blocks that change no size."""

    def __init__(self) -> None:
        super().__init__(WIDTHS[-1], [WIDTHS[-1]] * 3, [1] * 3)

    def of_two(self, coarse: Tensor, fine: Tensor, corners: bool) -> Tensor:
        """The blocks on the sum of a coarse and a fine map, the coarse one resized over the query's axes."""
        b, h, w, u, v, c = coarse.shape
        flat = coarse.reshape(b, h, w, u * v * c).permute(0, 3, 1, 2)  # (B,uvC,h,w), channels last
        up = resize(flat, (fine.shape[1], fine.shape[2]), corners).permute(0, 2, 3, 1)
        return self._on(up.unflatten(3, (u, v, c)) + fine, 0)
