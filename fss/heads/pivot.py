"""Center-pivot 4D convolutions, and the squeeze of correlations that they build.

Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021,
https://arxiv.org/abs/2104.01538

A 4D map relates every cell of a query's map (h,w) to every cell of a support's (u,v). It lies in memory as
(B,h,w,u,v,C), so that what slides over the support needs no copy of it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.ops import exporting, resize

WIDTHS = (16, 64, 128)  # channels of the three blocks of a squeeze
_ON_CPU, _ON_GPU = 2**20, 2**25  # correlations that are held at once; on a CPU the best of 2**16 to 2**23


class Pass(NamedTuple):
    """A query and a support that are compared on n maps.

    Attributes:
        query, support: n directions, (C,h,w) and (C,u,v): cells of length 1.
        weight: n maps (1,u,v), 0 or more: what the mask leaves of the support's directions.
    """

    query: Sequence[Tensor]
    support: Sequence[Tensor]
    weight: Sequence[Tensor]

    def cells(self) -> list[Tensor]:
        """The query's cells, n of (hw,C)."""
        return [x.flatten(1).mT for x in self.query]

    def place(self) -> tuple[range, range]:
        """Rows and columns of the support that hold its object; the first where there is none. In a graph,
        which cannot depend on it, all."""
        mask = self.weight[0][0]
        if exporting():
            return range(mask.shape[0]), range(mask.shape[1])
        inside = (mask > 0).cpu()
        ends = [line.nonzero().flatten().tolist() or [0] for line in (inside.any(1), inside.any(0))]
        rows, columns = (range(places[0], places[-1] + 1) for places in ends)
        return rows, columns

    def cut(self, rows: range, columns: range) -> list[Tensor]:
        """The masked support there, n of (C,u',v')."""
        at = (slice(None), slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        return [(x[at] * g[at]).to(x.dtype) for x, g in zip(self.support, self.weight, strict=True)]


class KernelPart(NamedTuple):
    """Places `first` to `stop` - 1 of a kernel on an axis, and the zeros before and behind that they need."""

    first: int
    stop: int
    rim: tuple[int, int]


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
        out = self._over_support(x)  # first, since a sum lies in memory as its first part
        return out + self._over_query(x[:, :, :, :: self.stride, :: self.stride])

    def _over_query(self, x: Tensor) -> Tensor:
        b, h, w, u, v, _ = x.shape
        cells = x.permute(0, 3, 4, 1, 2, 5).flatten(0, 2)  # (Buv,h,w,C)
        return _conv(self.conv1, cells).view(b, u, v, h, w, -1).permute(0, 3, 4, 1, 2, 5)

    def _over_support(self, x: Tensor) -> Tensor:
        b, h, w, u, v, _ = x.shape
        if self.stride == 1 and self.kernel == 3 and max(u, v) <= 2:
            bias = self.conv2.get_parameter("bias").repeat(u * v)
            return F.linear(x.flatten(3), self._matrix(u, v), bias).view(b, h, w, u, v, -1)
        down, across = (self._kernel_part(cells) for cells in (u, v))
        weight = self.conv2.weight[:, :, down.first : down.stop, across.first : across.stop]
        cells = F.pad(x.flatten(0, 2), (0, 0, *across.rim, *down.rim)).permute(0, 3, 1, 2)  # (Bhw,C,.,.)
        out = F.conv2d(cells, weight, self.conv2.bias, self.stride)
        return out.permute(0, 2, 3, 1).contiguous().unflatten(0, (b, h, w))

    def _kernel_part(self, cells: int) -> KernelPart:
        """The part of `conv2`'s kernel that sees any of the cells of an axis, and the rim that it needs.

        The rest has no part in the answer; and PyTorch's gradients of it, which are 0, come out as whatever
        lay in memory in bfloat16 on a CPU (2.14, oneDNN).
        """
        s, p = self.stride, self.pad
        starts = [out * s - p for out in range((cells - 1) // s + 1)]  # the first cell of each output
        first = min(max(0, -start) for start in starts)
        stop = max(min(self.kernel, cells - start) for start in starts)
        return KernelPart(first, stop, (p - first, starts[-1] + stop - cells))

    def _matrix(self, u: int, v: int) -> Tensor:
        """`conv2` on a support of at most 2 x 2 cells, where every output sees every input: (uvO,uvC)."""
        weight = torch.stack([self.conv2.weight[:, :, 1 - i : 1 - i + u] for i in range(u)])  # (u,O,C,u',3)
        weight = torch.stack([weight[..., 1 - j : 1 - j + v] for j in range(v)], 1)  # (u,v,O,C,u',v')
        return weight.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)

    def of_features(self, given: Pass) -> Tensor:
        """The convolution of one pass's correlations, which are never all held at once.

        Outputs that the object does not reach are the biases: the others' window alone is computed.

        Returns:
            (h,w,ceil(u/s),ceil(v/s),O).
        """
        h, w = given.query[0].shape[-2:]
        place = given.place()
        sizes = [(cells - 1) // self.stride + 1 for cells in given.support[0].shape[-2:]]
        down, across = (self._reached(line, size) for line, size in zip(place, sizes, strict=True))
        out, own = self._in_parts(given, place, [*self._rim(place[1], across), *self._rim(place[0], down)])
        cells = own.permute(2, 3, 1, 0).flatten(0, 1).unflatten(2, (h, w))  # (ab,n,h,w)
        own = F.conv2d(cells, self.conv1.weight, padding=self.pad)
        out = out + own.flatten(2).permute(2, 1, 0).unflatten(2, (len(down), len(across)))  # (hw,O,a,b)
        rim = (0, 0, across.start, sizes[1] - across.stop, down.start, sizes[0] - down.stop)
        out = F.pad(out.permute(0, 2, 3, 1), rim).unflatten(0, (h, w))
        return out.add_(self.conv1.get_parameter("bias") + self.conv2.get_parameter("bias"))

    def _reached(self, cells: range, size: int) -> range:
        """Outputs of one axis, `size` in all, that see any of these cells; the last where none does, as the
        cells behind it."""
        first = min(max(0, -((self.pad - cells.start) // self.stride)), size - 1)
        return range(first, max(first, min(size - 1, (cells.stop - 1 + self.pad) // self.stride)) + 1)

    def _rim(self, cells: range, outputs: range) -> tuple[int, int]:
        """How many cells these outputs see before and behind those of one axis; negative where fewer."""
        first, last = outputs.start * self.stride - self.pad, (outputs.stop - 1) * self.stride + self.pad
        return cells.start - first, last + 1 - cells.stop

    def _in_parts(self, given: Pass, place: tuple[range, range], rim: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Some query cells after others: `conv2` without its bias (hw,O,a,b), and what `conv1` works on
        (hw,n,a,b).

        Correlations have no gradient. For the weights' gradients training keeps the window's.
        """
        support, s, p = given.cut(*place), self.stride, self.pad

        def part(*cells: Tensor) -> tuple[Tensor, Tensor]:
            window = F.pad(correlations(cells, support), rim)  # (Q,n,u',v')
            return F.conv2d(window, self.conv2.weight, stride=s), window[:, :, p::s, p::s].contiguous()

        out, own = zip(*(part(*cells) for cells in _parts(given.cells(), support)), strict=True)
        return torch.cat(out), torch.cat(own)


@torch.no_grad()
def correlations(query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """Cosines, negative ones 0, of n maps: cells (Q,C) with maps (C,u,v) -> (Q,n,u,v)."""
    each = [q @ s.flatten(1) for q, s in zip(query, support, strict=True)]  # n of (Q,uv)
    return torch.stack(each, 1).clamp_(min=0).unflatten(2, support[0].shape[1:])


def likeness(given: Pass) -> Tensor:
    """Mean correlation of n maps with the support's cell where it is best, (h,w)."""
    support = given.cut(*given.place())
    parts = _parts(given.cells(), support)
    best = [correlations(part, support).mean(1).amax((1, 2)) for part in parts]
    return torch.cat(best).unflatten(0, given.query[0].shape[-2:]).clamp(max=1)


def _parts(query: Sequence[Tensor], support: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Cells n x (Q,C) in groups whose correlations with the support are few enough; in a graph, all."""
    values = _ON_GPU if query[0].is_cuda else _ON_CPU
    at_once = max(1, values // (len(query) * support[0][0].numel()))
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

    def of_features(self, passes: Sequence[Pass]) -> Tensor:
        """The blocks on the correlations of B passes: (B,h,w,u',v',O)."""
        first = cast(CenterPivot, self[0])
        each = [first.of_features(given) for given in passes]
        return self._on(torch.stack(each) if len(each) > 1 else each[0][None], 1)  # of one, no copy

    def _on(self, x: Tensor, done: int) -> Tensor:
        """All layers but the first `done`."""
        for layer in list(self)[done:]:
            x = _normed(layer, x) if isinstance(layer, nn.GroupNorm) else layer(x)
        return x


def _normed(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """The norm of a map (B,h,w,u,v,C), over all that but the batch."""
    b, h, w, u, v, c = x.shape
    cells = x.reshape(b, h * w, u * v, c).permute(0, 3, 1, 2)  # (B,C,hw,uv), channels last
    return cast(Tensor, norm(cells)).permute(0, 2, 3, 1).reshape(b, h, w, u, v, c)


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
        return self._on(fine + up.unflatten(3, (u, v, c)), 0)
