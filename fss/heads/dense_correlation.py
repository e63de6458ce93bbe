"""Matching at three levels, a decoder from coarse to fine, and what coarse correlations teach finer ones.

Peng, Tian, Wu, Wang, Liu, Su, Jia, "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation",
CVPR 2023, https://arxiv.org/abs/2303.14652, sections 3.2 and 3.3. Maps of `fss.heads.mix_transformer` have
their channels last, all others are (B,C,h,w). Parameter names are those of the published weights.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.cells import nearest
from fss.heads.mix_transformer import HEADS, Encoder, Foreground, Matching
from fss.ops import exporting, resize

_EPS = 1e-12  # keeps shares from the logarithm of zero
_EQUAL = 1e-6  # shares of foreground that differ by less are one: a resize rounds


class FixedNorm(nn.Module):
    """A batch norm that never leaves evaluation mode: weight and bias learn, its statistics stay as they are,
    0 and 1 where no published file brings others."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def after(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution that is that one with this norm behind it."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = -self.running_mean if conv.bias is None else conv.bias - self.running_mean
        return conv.weight * scale[:, None, None, None], self.bias + shift * scale


class Merge(nn.Module):
    """A matched map beside the similarity, through a 3x3 convolution."""

    def __init__(self, width: int, likenesses: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width + likenesses, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = FixedNorm(width)

    def forward(self, matched: Tensor, similarity: Tensor) -> Tensor:
        """(B,C,h,w) and (B,N,h,w) -> (B,C,h,w)."""
        weight, bias = self.bn.after(self.conv)
        return F.conv2d(torch.cat([matched, similarity], 1), weight, bias, padding=1).relu()


class Squeezed(nn.Sequential):
    """Convolutions 1x1, 3x3 and 1x1 without activations between them, computed as the one 3x3 that they are.

    The middle one has four times the channels; together they cost a sixteenth of themselves. Where the 3x3's
    window leaves the map it sees zeros, not the first one's bias, which so becomes a kernel of its own on a
    map of ones.
    """

    def __init__(self, width: int, outputs: int, end: bool) -> None:
        wide = 4 * width
        last = [] if end else [FixedNorm(outputs), nn.ReLU()]
        super().__init__(
            nn.Conv2d(width, wide, 1), FixedNorm(wide), nn.Conv2d(wide, wide, 3, padding=1), FixedNorm(wide),
            nn.Conv2d(wide, outputs, 1), *last,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,O,h,w)."""
        weight, border, bias = self._composed()
        ones = x.new_ones(1, 1, *x.shape[-2:])
        x = F.conv2d(x, weight, bias, padding=1) + F.conv2d(ones, border, padding=1)
        return x if len(self) == 5 else x.relu()

    def _composed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (O,C,3,3), those of a map of ones (O,1,3,3), and bias (O,)."""
        layers = cast(Any, list(self))
        (first, a), (middle, b) = (layers[i + 1].after(layers[i]) for i in (0, 2))
        last, c = (layers[4].weight, layers[4].bias) if len(self) == 5 else layers[5].after(layers[4])
        last = last.flatten(1)  # (O,M)
        window = torch.tensordot(last, middle, 1)  # (O,M,3,3)
        weight = torch.tensordot(window, first.flatten(1), ([1], [0])).movedim(-1, 1)  # (O,C,3,3)
        return weight.contiguous(), torch.tensordot(window, a, ([1], [0]))[:, None], last @ b + c


class HierarchicalMatching(nn.Module):
    """Encoder, matching layers and decoder.

    Args:
        width: C of all maps.
        likenesses: N of the similarity.
        dropout: share of single values dropped behind attention and in feed-forward layers.
    """

    def __init__(self, width: int = 64, likenesses: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.down_sample_layers = Encoder(width, dropout)
        pair = lambda: nn.ModuleList([Matching(width, dropout), Merge(width, likenesses)])  # noqa: E731
        self.match_layers = nn.ModuleList(pair() for _ in HEADS)
        self.parse_layers = nn.ModuleList(Squeezed(width, width, end=False) for _ in HEADS)
        self.cls = Squeezed(width, 2, end=True)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B,C,h,w) -> the levels' features (B,h,w,C), finest first."""
        return self.down_sample_layers(x)

    def forward(
        self, query: Sequence[Tensor], supports: Sequence[Tensor], masks: Tensor, similarity: Tensor,
        corners: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Logits, and each level's correlation map.

        Args:
            query: the levels' features (B,h,w,C), as `encode` made them.
            supports: the same, (B,K,h,w,C).
            masks: (B,K,H,W) of 0, 1 and 255.
            similarity: (B,N,h,w), of the finest level's size.
            corners: as of `fss.ops.resize`.

        Returns:
            (B,2,h,w), and (B,h,w) of each level, finest first.
        """
        merged, correlations = [], []
        for x, theirs, layers in zip(query, supports, self.match_layers, strict=True):
            match, merge = cast(Any, layers)
            matched, correlation = match(x, foreground_of(theirs, masks))
            size = (x.shape[1], x.shape[2])
            merged.append(merge(matched.movedim(-1, 1), resize(similarity, size, corners)))
            correlations.append(correlation)
        return self.cls(self._decoded(merged)), correlations

    def _decoded(self, maps: Sequence[Tensor]) -> Tensor:
        """The levels' maps (B,C,h,w), finest first -> one of the finest's size."""
        *finer, coarsest = zip(maps, self.parse_layers, strict=True)
        out = coarsest[1](coarsest[0])
        for x, parse in reversed(finer):
            # As published, whatever the network's corners: cells of a level are windows of the finer one.
            out = resize(out, (x.shape[-2], x.shape[-1]), corners=False)
            out = out + parse(x + out)
        return out


def foreground_of(supports: Tensor, masks: Tensor) -> list[Foreground]:
    """Each episode's cells of a level (B,K,h,w,C) under their masks (B,K,H,W), all shots together."""
    inside = nearest(masks, (supports.shape[2], supports.shape[3])) == 1  # (B,K,h,w)
    if exporting():
        every = zip(supports.flatten(1, 3), inside.flatten(1), strict=True)
        return [Foreground(cells, own.to(cells.dtype)) for cells, own in every]
    each = [cells[own] for cells, own in zip(supports, inside, strict=True)]  # (F,C)
    return [Foreground(cells, cells.new_ones(len(cells))) for cells in each]


def divergences(correlations: Sequence[Tensor], masks: Tensor) -> Tensor:
    """How far each level's correlations are from its teacher's: the mask's for the coarsest, whose own teach
    the next one, and so on (section 3.3).

    Args:
        correlations: (B,h,w) of each level, finest first.
        masks: the queries', (B,H,W) of 0, 1 and 255.

    Returns:
        one number a level, coarsest first: Kullback-Leibler divergences, means over the batch.
    """
    coarse_first = list(reversed(correlations))
    teachers = [mask_shares(masks, coarse_first[0].shape[-2:])]
    for coarse, fine in pairwise(coarse_first):
        size = (fine.shape[-2], fine.shape[-1])
        teachers.append(_shares(resize(coarse.detach()[:, None], size, corners=False)[:, 0]))
    return torch.stack([
        (t * ((t + _EPS).log() - (_shares(own) + _EPS).log())).sum(1).mean()
        for t, own in zip(teachers, coarse_first, strict=True)
    ])  # fmt: skip


def mask_shares(masks: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The share of each cell in a query's foreground: masks (B,H,W) -> (B,hw), each row with the sum 1.

    As published, a bilinear resize that looks at four pixels a cell decides: the cells with most foreground
    in it, which are those with nothing else if there are any, share all evenly. Where there is no foreground
    these are all cells. (The published program resizes 1 and -1e9, whose rounding in float32 is far above
    what the softmax tells apart; this is what it does without it.)
    """
    shares = resize((masks == 1).float()[:, None], (size[0], size[1]), corners=False).flatten(1)  # (B,hw)
    most = (shares > shares.amax(1, keepdim=True) - _EQUAL).float()
    return most / most.sum(1, keepdim=True)


def _shares(x: Tensor) -> Tensor:
    """(B,h,w) -> softmax over cells (B,hw)."""
    return x.flatten(1).softmax(1)
