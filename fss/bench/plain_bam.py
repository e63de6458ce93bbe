"""BAM as one would write it down, on a model's parameters: every image through the whole network, vectors and
the pooled branch repeated at each cell, all maps side by side."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from fss.bench.plain import features, up
from fss.bench.plain_pfenet import prior
from fss.episode import Episode
from fss.heads.bam import BAM
from fss.model import FewShotModel


def bam(model: FewShotModel, e: Episode, training: bool) -> tuple[Tensor, list[Tensor]]:
    """BAM's logits at image size, and the meta learner's; of its supports, all weigh alike."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, BAM) and head.ensemble is not None
    query, shots = features(model, e.query_image), e.support_images.shape[1]
    x = head.down_query(torch.cat([query["stage3"], query["stage2"]], 1))  # (B,C,h,w)
    vector, likeness, psi = (torch.zeros((), device=x.device) for _ in range(3))
    for image, mask in zip(e.support_images.unbind(1), e.support_masks.unbind(1), strict=True):
        support = features(model, image, last=3)
        inside = up((mask == 1).float()[:, None], (x.shape[-2], x.shape[-1]))  # (B,1,h,w)
        reduced = head.down_supp(torch.cat([support["stage3"], support["stage2"]], 1))
        vector = vector + (reduced * inside).sum((2, 3)) / (inside.sum((2, 3)) + 0.0005) / shots
        likeness = likeness + prior(model.backbone, query["stage4"], support["stage3"], inside) / shots
        psi = psi + distance(query["stage2"], support["stage2"]) / shots
    meta = meta_learner(head.meta, x, vector, likeness)  # (B,2,h,w)
    base = cast(nn.Module, model.classifier)(query["neck"]).softmax(1)[:, 1:].sum(1, keepdim=True)
    likely, style = meta.softmax(1), psi[:, None, None, None].expand_as(base)
    background, foreground = (
        head.ensemble.gram_merge(torch.cat([one, style], 1)) for one in likely.split(1, dim=1)
    )
    background = head.ensemble.cls_merge(torch.cat([background, base], 1))
    return up(torch.cat([background, foreground], 1), size), [up(meta, size)]


@torch.no_grad()
def distance(query: Tensor, support: Tensor) -> Tensor:
    """Psi (B,) of maps (B,C,h,w)."""
    return (cosines(query) - cosines(support)).norm(dim=(1, 2)) / query.shape[1]


def cosines(x: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,C,C) of its channels."""
    channels = x.flatten(2)
    length = channels.norm(dim=2)
    return channels @ channels.mT / (length[:, :, None] * length[:, None] + 1e-7)


def meta_learner(net: Any, x: Tensor, vector: Tensor, likeness: Tensor) -> Tensor:
    """Logits (B,2,h,w) of the reduced query (B,C,h,w), a vector (B,C) and a prior (B,1,h,w)."""
    x = net.init_merge(torch.cat([x, vector[..., None, None].expand_as(x), likeness], 1))
    aspp = net.ASPP_meta
    whole = aspp.layer6_0(x.mean((2, 3), keepdim=True)).expand_as(x)
    branches = [aspp.layer6_1(x), aspp.layer6_2(x), aspp.layer6_3(x), aspp.layer6_4(x)]
    x = net.res1_meta(torch.cat([whole, *branches], 1))
    return cast(Tensor, net.cls_meta(x + net.res2_meta(x)))
