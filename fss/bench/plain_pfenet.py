"""PFENet as one would write it down, on a model's parameters: every cell of a support meets every cell of the
query, and its vector is repeated at each of them."""

from typing import Any

import torch
from torch import Tensor

from fss.bench.plain import features, pyramid, up
from fss.episode import Episode
from fss.heads.pfenet import PFENet
from fss.model import FewShotModel


def pfenet(model: FewShotModel, e: Episode, training: bool) -> tuple[Tensor, list[Tensor]]:
    """PFENet's logits at image size, and those of its pyramid's scales."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, PFENet)
    query = features(model, e.query_image)
    x = head.down_query(torch.cat([query["stage3"], query["stage2"]], 1))  # (B,C,h,w)
    vectors, priors = [], []
    for image, mask in zip(e.support_images.unbind(1), e.support_masks.unbind(1), strict=True):
        support = features(model, image, last=3)
        inside = up((mask == 1).float()[:, None], (x.shape[-2], x.shape[-1]))  # (B,1,h,w)
        reduced = head.down_supp(torch.cat([support["stage3"], support["stage2"]], 1))
        vectors.append((reduced * inside).sum((2, 3)) / (inside.sum((2, 3)) + 0.0005))
        priors.append(prior(model.backbone, query["stage4"], support["stage3"], inside))
    vector = torch.stack(vectors).mean(0)[..., None, None]  # (B,C,1,1)
    pair = torch.cat([x, vector.expand_as(x)], 1)
    logits, scales = pyramid(head.context, pair, torch.stack(priors).mean(0), training)
    return up(logits, size), scales


@torch.no_grad()
def prior(net: Any, query: Tensor, stage3: Tensor, inside: Tensor) -> Tensor:
    """(B,1,h,w) of one support, from the query's stage 4 and the support's stage 3."""
    best = largest(query, net.layer4(stage3 * inside) * inside)[:, None]  # (B,1,h,w)
    least, most = best.amin((2, 3), keepdim=True), best.amax((2, 3), keepdim=True)
    return (best - least) / (most - least + 1e-7)


def largest(query: Tensor, support: Tensor) -> Tensor:
    """Each query cell's largest cosine with any support cell: (B,C,h,w), (B,C,h,w) -> (B,h,w)."""
    q, s = query.flatten(2), support.flatten(2)
    lengths = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None]  # (B,hw,hw)
    return (s.mT @ q / (lengths + 1e-7)).amax(1).view(len(q), *query.shape[2:])
