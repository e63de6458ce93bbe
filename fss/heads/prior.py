"""Where a query looks like the supports' objects, without anything learned.

Tian, Zhao, Shu, Yang, Li, Jia, "Prior Guided Feature Enrichment Network for Few-Shot Segmentation",
TPAMI 2020, https://arxiv.org/abs/2008.01449, section 4.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.heads.base import Encoded
from fss.heads.cells import object_shares
from fss.ops import exporting

_LEAST = 1e-4  # of a cell that a mask covers: less is the rounding of a resize
_EPS = 1e-7


def support_priors(episodes: Encoded, level: str) -> Tensor:
    """`priors` of encoded maps of that name: (B,K,h,w)."""
    support = episodes.support[level]  # (B,K,C,.,.)
    shares = object_shares(episodes.support_masks, support, episodes.corners)
    return priors(episodes.query[level], support, shares)


@torch.no_grad()
def priors(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    """The largest cosine of every query cell with any cell of a support, from 0 to 1 over the query's cells.

    Args:
        query: (B,C,h,w).
        support: (B,K,C,.,.).
        masks: (B,K,.,.) shares of foreground in the supports' cells. A cell without any is a zero vector.

    Returns:
        (B,K,h,w), of each support; 0 everywhere where its mask is.
    """
    best = likenesses(query, support, masks).flatten(2)  # (B,K,hw)
    least, most = best.aminmax(dim=2, keepdim=True)
    return ((best - least) / (most - least + _EPS)).unflatten(2, query.shape[-2:])


@torch.no_grad()
def likenesses(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    """The largest cosine of every query cell with any cell of a support; arguments and shape of the result as
    of `priors`."""
    return torch.stack([
        torch.stack([likeness(q, s.flatten(1), mask.flatten()) for s, mask in zip(own, under, strict=True)])
        for q, own, under in zip(query.flatten(2), support, masks, strict=True)
    ]).unflatten(2, query.shape[-2:])  # fmt: skip


def likeness(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """The largest cosine of each cell of a query (C,n) with any of a support (C,m), whose mask is (m,): (n,).

    The query meets the cells under the mask alone; one zero vector stands for all the others.
    """
    inside = mask > _LEAST  # (m,)
    cells = support.mT * inside[:, None] if exporting() else _under(support.mT, inside)
    cells = F.normalize(cells.float(), dim=1, eps=_EPS)  # (.,C)
    query = query.float()
    return (cells @ query).amax(0) / query.norm(dim=0).clamp(min=_EPS)


def _under(cells: Tensor, inside: Tensor) -> Tensor:
    """Cells (m,C) under the mask (m,), and a zero vector where there are others."""
    return F.pad(cells[inside], (0, 0, 0, int(not inside.all())))
