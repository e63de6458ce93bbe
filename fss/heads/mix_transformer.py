"""Blocks of self-attention at three scales: what HDMNet decouples from matching.

Peng, Tian, Wu, Wang, Liu, Su, Jia, "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation",
CVPR 2023, https://arxiv.org/abs/2303.14652, section 3.2; blocks after Xie et al., "SegFormer", NeurIPS 2021,
https://arxiv.org/abs/2105.15203.

Maps have their channels last, (B,h,w,C): what norms and linear layers want, and what convolutions take for
images whose memory is channels last. Parameter names are those of the published weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # of layer norms
TEMPERATURE = 0.1  # of cosines in matching
_AT_ONCE = 1024  # support cells that meet the query together

HEADS = (2, 4, 8)  # of the levels' attention
REDUCTIONS = (4, 2, 1)  # cells of a side to one key
STRIDES = (1, 2, 2)


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer for images on a map (B,h,w,C), whose memory it sees as it is: (B,h',w',C')."""
    return layer(x.movedim(-1, 1)).movedim(1, -1)


class Foreground(NamedTuple):
    """The cells under the masks of all supports of an episode: (F,C), and what each counts, (F,).

    In exported graphs, where no shape may depend on masks, these are all cells, those outside counting 0.
    """

    cells: Tensor
    share: Tensor


class Attention(nn.Module):
    """Projections, and the two ways that they are used. Consecutive channels form a head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_o = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """Softmax over the source: cells (B,n,C) and (B,m,C) -> (B,n,C)."""
        q, k, v = self._split(self.linear_q(query)), self.linear_k(source), self.linear_v(source)
        attended = F.scaled_dot_product_attention(q, self._split(k), self._split(v))  # (B,H,n,C/H)
        return self.linear_o(attended.transpose(1, 2).flatten(2))

    def match(self, query: Tensor, supports: Sequence[Foreground]) -> tuple[Tensor, Tensor]:
        """Softmax over the query, for each support cell by itself (equations 3 and 4).

        Args:
            query: (B,n,C).
            supports: B.

        Returns:
            (B,n,C), and each cell's mean score over the supports' foreground and the heads, (B,n).
        """
        directions = F.normalize(self._split(self.linear_q(query)), dim=-1)  # (B,H,n,C/H)
        every = [self._matched(q, support) for q, support in zip(directions, supports, strict=True)]
        matched, correlation = map(torch.stack, zip(*every, strict=True))
        return self.linear_o(matched.transpose(1, 2).flatten(2)), correlation

    def _matched(self, query: Tensor, support: Foreground) -> tuple[Tensor, Tensor]:
        """One episode: directions (H,n,c) -> (H,n,c) and (n,)."""
        share = support.share[:, None]  # (F,1)
        keys = F.normalize(self._split(self.linear_k(support.cells)), dim=-1) / TEMPERATURE  # (H,F,c)
        values = self._split(self.linear_v(support.cells)) * share  # (H,F,c)
        matched = torch.zeros_like(query)
        for k, v in zip(keys.split(_AT_ONCE, 1), values.split(_AT_ONCE, 1), strict=True):
            matched = matched + (k @ query.mT).softmax(2).mT @ v
        # The mean of products is the product with the mean.
        mean = (keys * share).sum(1) / (share.sum() + 1e-9)  # (H,c)
        return matched, (query @ mean[..., None])[..., 0].mean(0)

    def _split(self, x: Tensor) -> Tensor:
        """(...,n,C) -> (...,H,n,C/H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class SelfAttention(nn.Module):
    """A map attends to itself, whose keys and values may be fewer.

    Args:
        reduction: cells of a side to one key; a remainder of cells is left out.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attn, self.reduction = Attention(width, heads), reduction
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> the same."""
        source = self._reduced(x) if self.reduction > 1 else x
        return self.attn(x.flatten(1, 2), source.flatten(1, 2)).view_as(x)

    def _reduced(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> (B,h/r,w/r,C); maps smaller than one key are filled up with zeros."""
        missing = [max(self.reduction - side, 0) for side in x.shape[1:3]]
        if any(missing):
            x = F.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
        return self.norm(convolved(self.sr, x))


class FeedForward(nn.Module):
    """Two linear layers, and between them a depthwise convolution, whose padding tells where a cell is."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        wide = 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(width, wide, 1), nn.Conv2d(wide, wide, 3, padding=1, groups=wide), nn.GELU(),
            nn.Dropout(dropout), nn.Conv2d(wide, width, 1), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> the same."""
        return convolved(self.layers, x)


class _Layers(nn.Module):
    """Norm, attention, norm, feed-forward, each pair with a shortcut."""

    def __init__(self, width: int, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = SelfAttention(width, heads, reduction)
        self.drop = nn.Dropout(dropout)
        self.ffn = FeedForward(width, dropout)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows the attention: maps (B,h,w,C) of its input and its output -> the same."""
        x = x + self.drop(attended)
        return x + self.ffn(self.norm2(x))


class Block(_Layers):
    """A map attends to itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> the same."""
        return self.after(x, self.attn(self.norm1(x)))


class Matching(_Layers):
    """A query attends to its supports' foreground."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, HEADS[0], 1, dropout)

    def forward(self, query: Tensor, supports: Sequence[Foreground]) -> tuple[Tensor, Tensor]:
        """Query (B,h,w,C) and B supports -> (B,h,w,C), and the correlation map (B,h,w)."""
        normed = [Foreground(self.norm1(cells), share) for cells, share in supports]
        matched, correlation = self.attn.attn.match(self.norm1(query).flatten(1, 2), normed)
        return self.after(query, matched.view_as(query)), correlation.view(query.shape[:3])


class PatchEmbedding(nn.Module):
    """A convolution with overlapping windows, and a norm."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        kernel = 2 * stride - 1
        self.projection = nn.Conv2d(width, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> (B,h',w',C), each side (n - 1) // stride + 1."""
        return self.norm(convolved(self.projection, x))


class Encoder(nn.ModuleList):
    """Three levels of self-attention, the same for queries and supports."""

    def __init__(self, width: int, dropout: float) -> None:
        levels = zip(HEADS, REDUCTIONS, STRIDES, strict=True)
        super().__init__(
            nn.Sequential(
                PatchEmbedding(width, stride),
                Block(width, heads, reduction, dropout),
                Block(width, heads, reduction, dropout),
                nn.LayerNorm(width, EPS),
            )
            for heads, reduction, stride in levels
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """A map (B,C,h,w) -> those of the levels (B,h,w,C), finest first; each is the next one's input."""
        x, out = x.movedim(1, -1), []
        for level in self:
            x = level(x)
            out.append(x)
        return out
