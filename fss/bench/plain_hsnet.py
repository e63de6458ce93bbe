"""HSNet as one would write it down: what the head's fast ways are held against.

4D tensors (B,C,h,w,u,v) are held whole, both halves of a convolution fold and copy theirs, and the query is
encoded anew for each of its supports.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.bench.plain import blocks, up
from fss.episode import Episode
from fss.heads.hsnet import HSNet
from fss.heads.pivot import CenterPivot
from fss.model import FewShotModel


def hsnet(model: FewShotModel, e: Episode, training: bool = False) -> tuple[Tensor, list[Tensor]]:
    """HSNet's logits at image size, of several supports their vote; it has no auxiliary ones."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, HSNet)
    passes = []
    for k in range(e.support_masks.shape[1]):
        query, support = blocks(model, e.query_image), blocks(model, e.support_images[:, k])
        mask = (e.support_masks[:, k] == 1).float()[:, None]
        pyramid = [
            torch.stack(
                [correlated(q, s, mask) for q, s in zip(query[stage], support[stage], strict=True)], 1
            )
            for stage in (4, 3, 2)
        ]
        passes.append(up(squeezed(head, pyramid), size))
    if len(passes) == 1:
        return passes[0], []
    votes = torch.stack([x.argmax(1) for x in passes]).sum(0)  # (B,H,W)
    share = votes / votes.amax((1, 2), keepdim=True).clamp(min=1)
    return F.one_hot((share >= 0.5).long(), 2).permute(0, 3, 1, 2).float(), []


@torch.no_grad()
def correlated(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Cosines, negative ones 0, of a block's maps (B,C,h,w) with the masked ones (B,C,u,v): (B,h,w,u,v)."""
    masked = support * up(mask, (support.shape[-2], support.shape[-1]))
    a = query / (query.norm(dim=1, keepdim=True) + 1e-5)
    b = masked / (masked.norm(dim=1, keepdim=True) + 1e-5)
    cosines = torch.bmm(a.flatten(2).mT, b.flatten(2)).clamp(min=0)
    return cosines.view(len(a), *a.shape[2:], *b.shape[2:])


def squeezed(head: HSNet, pyramid: list[Tensor]) -> Tensor:
    """Correlations of stages 4, 3 and 2, (B,n,h,w,u,v), -> logits (B,2,2h,2w) of stage 2's size."""
    four, three, two = (
        run(encoder, x)
        for encoder, x in zip(
            (head.encoder_layer4, head.encoder_layer3, head.encoder_layer2), pyramid, strict=True
        )
    )
    x = run(head.encoder_layer4to3, wider(four, three) + three)
    x = run(head.encoder_layer3to2, wider(x, two) + two).mean((4, 5))
    x = head.decoder1(x)
    return cast(Tensor, head.decoder2(up(x, (2 * x.shape[-2], 2 * x.shape[-1]))))


def run(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Center-pivot convolutions, norms and ReLUs on (B,C,h,w,u,v)."""
    for layer in layers:
        x = pivot(layer, x) if isinstance(layer, CenterPivot) else layer(x)
    return x


def pivot(layer: CenterPivot, x: Tensor) -> Tensor:
    """Both halves, each folded and copied: (B,C,h,w,u,v) -> (B,O,h,w,u',v')."""
    b, _, h, w = x.shape[:4]
    pruned = x[..., :: layer.stride, :: layer.stride]
    own = layer.conv1(pruned.permute(0, 4, 5, 1, 2, 3).flatten(0, 2).contiguous())  # (Bu'v',O,h,w)
    own = own.unflatten(0, (b, *pruned.shape[-2:])).permute(0, 3, 4, 5, 1, 2).contiguous()
    other = layer.conv2(x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous())  # (Bhw,O,u',v')
    return own + other.unflatten(0, (b, h, w)).permute(0, 3, 1, 2, 4, 5).contiguous()


def wider(x: Tensor, like: Tensor) -> Tensor:
    """Resize the query's axes of (B,C,h,w,u,v) to those of another map."""
    b, c, h, w, u, v = x.shape
    flat = x.permute(0, 4, 5, 1, 2, 3).reshape(b * u * v, c, h, w)
    flat = up(flat, (like.shape[2], like.shape[3]))
    return flat.unflatten(0, (b, u, v)).permute(0, 3, 4, 5, 1, 2).contiguous()
