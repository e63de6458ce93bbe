"""INSID3 as one would write it down, on a model's parameters: positions computed for each episode, from all
singular vectors; every query cell compared with every cell of a support."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.bench.plain import features, up
from fss.episode import Episode
from fss.heads.insid3 import INSID3
from fss.model import FewShotModel


@torch.no_grad()
def insid3(model: FewShotModel, e: Episode, training: bool = False) -> tuple[Tensor, list[Tensor]]:
    """INSID3's logits at image size for one episode; it has no auxiliary ones."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, INSID3)
    maps = lambda images: F.normalize(features(model, images)[head.levels[0]], dim=1)  # noqa: E731
    black = maps(torch.zeros_like(e.query_image))[0].flatten(1)  # (C,n)
    vectors = torch.linalg.svd(black - black.mean(1, keepdim=True), full_matrices=False)[0]
    vectors = vectors[:, : head.components]
    apart = lambda x: F.normalize(x - torch.einsum("ck,dk,bdhw->bchw", vectors, vectors, x), dim=1)  # noqa: E731
    query = maps(e.query_image)  # (1,C,h,w)
    supports = apart(maps(e.support_images[0]))  # (K,C,h,w)
    masks = up((e.support_masks[0] == 1).float()[:, None], (query.shape[-2], query.shape[-1]))[:, 0] > 0.5
    mask = _mask(query[0].flatten(1), apart(query)[0].flatten(1), supports.flatten(2), masks.flatten(1), head)
    lead = (up(mask.view(1, 1, *query.shape[-2:]), size) > 0.5).float() - 0.5
    return torch.cat([torch.zeros_like(lead), lead], 1), []


def _mask(query: Tensor, apart: Tensor, supports: Tensor, masks: Tensor, head: INSID3) -> Tensor:
    """Which query cells are the object's (n,), 1 or 0: features (C,n) as they are and apart from positions,
    supports (K,C,m), masks (K,m)."""
    means = [s[:, mask].mean(1) for s, mask in zip(supports, masks, strict=True)]
    reference = F.normalize(torch.stack(means).mean(0), dim=0)  # (C,)
    cosine = reference @ apart  # (n,)
    forward = cosine > 0 if (cosine > 0).any() else cosine > cosine.quantile(0.9)
    votes = [mask[(s.T @ apart).argmax(0)] for s, mask in zip(supports, masks, strict=True)]
    chosen = forward & (torch.stack(votes).sum(0) >= (len(supports) + 1) // 2)
    if not chosen.any():
        return torch.zeros_like(cosine)
    clusters = _clusters(query, 1 - head.tau)
    groups = [clusters == i for i in range(int(clusters.max()) + 1)]
    close = lambda x, g: F.normalize(x[:, g].mean(1), dim=0)  # noqa: E731
    seed = max((g for g in groups if chosen[g].any()), key=lambda g: float(close(apart, g) @ reference))
    out = torch.zeros_like(cosine)
    for g in groups:
        share = 1.0 if g is seed else chosen[g].float().mean()
        out[g] = float(cosine[g].mean() * (close(query, g) @ close(query, seed)) * share > head.merge)
    return out


def _clusters(cells: Tensor, cut: float) -> Tensor:
    """Average linkage of cells (C,n) by cosine distance: (n,) from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = (1 - cells.T @ cells).clamp(min=0).cpu().numpy()
    labels = fcluster(linkage(squareform(distances, checks=False), "average"), cut, "distance")
    return torch.from_numpy(labels).to(cells.device) - 1
