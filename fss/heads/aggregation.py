"""Masks aggregated by attention: a query cell gathers the supports' mask values, each weighted by likeness.

Shi, Wei, Zhang, Lu, Ning, Chen, Ma, Zheng, "Dense Cross-Query-and-Support Attention Weighted Mask Aggregation
for Few-Shot Segmentation", ECCV 2022, https://arxiv.org/abs/2207.08549

N query cells, M support cells, J attention heads, d channels of one.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fss.ops import exporting

_ON_CPU, _ON_GPU = 2**18, 2**27  # attention weights that are held at once
_STEPS = 256  # of a share that dropout drops: a byte decides


def positions(cells: int, width: int, device: torch.device | None = None) -> Tensor:
    """The code (N,C) of cells in row-major order: sines in even channels, cosines in odd ones.

    Channels 2i and 2i + 1 of cell p are of the angle p / 10,000^(2i/C). All of it is float32, as published,
    whose rounding shows from the thousandth cell on.
    """
    even = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    rates = (even * (-math.log(10_000) / width)).exp()  # (C/2,)
    angles = torch.arange(cells, device=device, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :width]


class Projections(nn.Module):
    """Cells of a stage -> queries and keys; the same for all of its blocks.

    Both begin equal, so that the first weights go by likeness.

    Args:
        width: C; `heads` divides it.
        dropout: share of the cells' values dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        query = nn.Linear(width, width)
        self.linears = nn.ModuleList([query, copy.deepcopy(query)])

    def queries(self, x: Tensor) -> Tensor:
        """Maps (B,C,h,w) -> (B,J,h,w,d), over the root of d: products with keys are scores."""
        return self._projected(x, 0) * (x.shape[1] // self.heads) ** -0.5

    def keys(self, x: Tensor) -> Tensor:
        """Maps (B,C,h,w) -> (B,J,h,w,d)."""
        return self._projected(x, 1)

    def _projected(self, x: Tensor, which: int) -> Tensor:
        cells = x.flatten(2).mT  # (B,N,C)
        coded = self.dropout(cells + positions(cells.shape[1], cells.shape[2], x.device))
        out: Tensor = self.linears[which](coded).unflatten(2, (self.heads, -1))
        return out.transpose(1, 2).contiguous().unflatten(2, x.shape[2:])


def aggregated(query: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0, seed: int = 0) -> Tensor:
    """The values' mean, weighted by attention, and its mean over heads: (N,).

    Weights are never all held at once, and computed again for gradients.

    Args:
        query: (J,N,d), as of `Projections.queries`.
        keys: (J,M,d).
        values: (M,), without gradient.
        dropout: share of the weights that is dropped; `seed` decides which.
    """
    query, keys = (x if x.dtype == torch.float64 else x.float() for x in (query, keys))
    values = values.to(query.dtype)
    if torch.is_grad_enabled() and (query.requires_grad or keys.requires_grad):
        out: Tensor = _Aggregated.apply(query, keys, values, dropout, seed)  # type: ignore[no-untyped-call]
    else:
        out = _gathered(query, keys, values, dropout, seed)
    return out.mean(0)


class _Dropout:
    """Masks of the weights, one for each part: the same ones whenever this is constructed again.

    A byte of a random number decides for each weight, so that shares are whole numbers of 256ths.
    """

    def __init__(self, share: float, seed: int, device: torch.device) -> None:
        self.dropped = min(round(share * _STEPS), _STEPS - 1)
        self.generator = torch.Generator(device).manual_seed(seed) if self.dropped else None

    @property
    def factor(self) -> float:
        """The remaining weights grow by it."""
        return _STEPS / (_STEPS - self.dropped)

    def mask(self, like: Tensor) -> Tensor | None:
        """False where a weight is dropped, of the shape of these weights; None where none is."""
        if self.generator is None:
            return None
        words = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None, generator=self.generator)
        return (words.view(torch.uint8)[: like.numel()] >= self.dropped).view(like.shape)


def _gathered(query: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: int) -> Tensor:
    """Each head's weighted mean (J,N)."""
    drop = _Dropout(dropout, seed, query.device)
    values = values * drop.factor
    means = []
    for heads, cells in _parts(query, keys):
        weights = (query[heads, cells] @ keys[heads].mT).softmax(-1)  # (n,M), or (J,n,M)
        mask = drop.mask(weights)
        means.append((weights if mask is None else weights.mul_(mask)) @ values)
    return torch.cat(means, -1).view(query.shape[:2])


class _Aggregated(torch.autograd.Function):
    """`_gathered`, whose backward pass computes the weights again, part by part."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: int) -> Tensor:
        out = _gathered(query, keys, values, dropout, seed)
        ctx.save_for_backward(query, keys, values, out)
        ctx.dropout, ctx.seed = dropout, seed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, out = ctx.saved_tensors
        drop = _Dropout(ctx.dropout, ctx.seed, query.device)
        values = values * drop.factor
        of_query, of_keys = torch.empty_like(query), torch.zeros_like(keys)
        for heads, cells in _parts(query, keys):
            scores = (query[heads, cells] @ keys[heads].mT).softmax(-1)  # weights, until they are multiplied
            mask = drop.mask(scores)
            masked = values if mask is None else mask * values
            scores.mul_(masked - out[heads, cells, None]).mul_(slope[heads, cells, None])
            of_query[heads, cells] = scores @ keys[heads]
            of_keys[heads] += scores.mT @ query[heads, cells]
        return of_query, of_keys, None, None, None


def _parts(query: Tensor, keys: Tensor) -> Iterator[tuple[Any, slice]]:
    """Heads and query cells whose weights are computed at once: on a CPU one head's, of cells whose weights
    fit into its cache; on a GPU all heads', and many cells; in a graph everything."""
    (count, cells), m = query.shape[:2], keys.shape[1]
    if exporting():
        yield slice(None), slice(None)
        return
    together = query.is_cuda
    step = max(1, _ON_GPU // (count * m) if together else _ON_CPU // m)
    for heads in [slice(None)] if together else range(count):
        for first in range(0, cells, step):
            yield heads, slice(first, first + step)
