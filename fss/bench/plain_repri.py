"""RePRI as one would write it down: autograd through the cosine, one episode at a time, with all cells."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.bench.plain import features, up
from fss.episode import IGNORE, Episode
from fss.heads.repri import RePRI
from fss.model import FewShotModel


class Terms(NamedTuple):
    """The loss's terms without their weights: cross-entropy, KL divergence, entropy."""

    cross_entropy: Tensor
    divergence: Tensor
    entropy: Tensor


def repri(model: FewShotModel, e: Episode, training: bool = False) -> tuple[Tensor, list[Tensor]]:
    """RePRI's logits (1,2,S,S) for one episode, of whose query all counts; it has no auxiliary ones."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, RePRI)
    support = features(model, e.support_images[0])["neck"]  # (K,C,h,w)
    query = features(model, e.query_image)["neck"]  # (1,C,h,w)
    everywhere = torch.zeros_like(e.support_masks[0, :1])
    vector, threshold = updates(head, support, query, e.support_masks[0], everywhere)
    lead = up(logits(vector, F.normalize(query, dim=1), head.scale)[:, None], size) - threshold
    return torch.cat([torch.zeros_like(lead), lead], 1), []


def updates(
    head: RePRI, support: Tensor, query: Tensor, masks: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """The vector (C,) and the threshold after all updates.

    Args:
        support, query: (K,C,h,w) and (1,C,h,w), not normalised.
        masks: (K,H,W) of 0, 1 and 255.
        seen: (1,H,W), 255 where the query does not count.
    """
    support, query = F.normalize(support, dim=1), F.normalize(query, dim=1)
    small = lambda x: F.interpolate(x[:, None].float(), size=query.shape[-2:])[:, 0]  # noqa: E731
    masks, seen = small(masks), small(seen)
    inside = (masks == 1)[:, None]
    vector = ((support * inside).sum((0, 2, 3)) / (inside.sum() + 1e-10)).requires_grad_()
    with torch.no_grad():
        threshold = logits(vector, query, head.scale).mean()
        share = probability(vector, threshold, query, head.scale)[seen != IGNORE].mean()
    threshold = threshold.requires_grad_()
    optimizer = torch.optim.SGD([vector, threshold], lr=head.lr)
    weight = weight_of_share = 1 / len(support)
    with torch.enable_grad():
        for step in range(head.steps):
            if step == head.renew:
                share = probability(vector, threshold, query, head.scale)[seen != IGNORE].mean().detach()
                weight_of_share += 1
            each = terms(vector, threshold, support, query, masks, seen, share, head.scale)
            loss: Any = each.cross_entropy + weight_of_share * each.divergence + weight * each.entropy
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return vector.detach(), threshold.detach()


def terms(
    vector: Tensor, threshold: Tensor, support: Tensor, query: Tensor, masks: Tensor, seen: Tensor,
    share: Tensor, scale: float,
) -> Terms:  # fmt: skip
    """The loss's terms, of maps of unit length, and of masks and `seen` at their size."""
    p = probability(vector, threshold, support, scale)
    right = torch.where(masks == 1, p, 1 - p)[masks != IGNORE]
    q = probability(vector, threshold, query, scale)[seen != IGNORE]  # (N,)
    both, expected = torch.stack([1 - q, q]), torch.stack([1 - share, share])  # (2,N), (2,)
    predicted = both.mean(1)
    return Terms(
        -(right + 1e-10).log().mean(),
        (predicted * (predicted / (expected + 1e-10)).log()).sum(),
        -(both * (both + 1e-10).log()).sum(0).mean(),
    )


def logits(vector: Tensor, maps: Tensor, scale: float) -> Tensor:
    """Scaled cosine of a vector (C,) and maps (N,C,h,w): (N,h,w)."""
    lengths = vector.norm() * maps.norm(dim=1) + 1e-10
    return scale * torch.einsum("c,nchw->nhw", vector, maps) / lengths


def probability(vector: Tensor, threshold: Tensor, maps: Tensor, scale: float) -> Tensor:
    """Of foreground, (N,h,w)."""
    return torch.sigmoid(logits(vector, maps, scale) - threshold)
