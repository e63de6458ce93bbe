"""DCAMA as one would write it down: what the head's fast ways are held against.

All scores of a block are held at once and kept for gradients, every image is projected anew, and the mixers
see all features side by side at full size.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.bench.plain import blocks, up
from fss.episode import Episode
from fss.heads.aggregation import Projections, positions
from fss.heads.dcama import DCAMA
from fss.model import FewShotModel


def dcama(model: FewShotModel, e: Episode, training: bool) -> tuple[Tensor, list[Tensor]]:
    """DCAMA's logits at image size; it has no auxiliary ones."""
    head, k = model.head, e.support_masks.shape[1]
    assert isinstance(head, DCAMA)
    query = blocks(model, e.query_image)
    supports = [blocks(model, e.support_images[:, i]) for i in range(k)]
    masks = (e.support_masks == 1).float()
    guesses = [
        torch.stack([guess(of, query[stage][i], [s[stage][i] for s in supports], masks, training)
                     for i in range(len(query[stage]))], 1)
        for stage, of in zip((2, 3, 4), cast(Any, head.DCAMA_blocks), strict=True)
    ]  # fmt: skip
    two, three, four = (
        convs(x) for convs, x in zip((head.conv3, head.conv2, head.conv1), guesses, strict=True)
    )
    x = head.conv4(three + up(four, (three.shape[-2], three.shape[-1])))
    x = head.conv5(two + up(x, (two.shape[-2], two.shape[-1])))
    middle, fine = (torch.stack([s[stage][-1] for s in supports]).amax(0) for stage in (2, 1))
    x = up(torch.cat([x, query[2][-1], middle], 1), (fine.shape[-2], fine.shape[-1]))
    x = head.mixer1(torch.cat([x, query[1][-1], fine], 1))
    h, w = e.query_image.shape[-2:]
    x = head.mixer2(up(x, ((h + 1) // 2, (w + 1) // 2)))
    return head.mixer3(up(x, (h, w))), []


def guess(of: Projections, query: Tensor, supports: list[Tensor], masks: Tensor, training: bool) -> Tensor:
    """What one block's cells guess, (B,h,w), from maps (B,C,h,w) and masks (B,K,H,W)."""
    h, w = query.shape[-2:]
    scores = projected(of, 0, query) @ projected(of, 1, *supports).mT  # (B,J,hw,Khw)
    weights = F.dropout((scores / (query.shape[1] / of.heads) ** 0.5).softmax(3), of.dropout.p, training)
    values = up(masks, (h, w)).flatten(1)[:, None, :, None]  # (B,1,Khw,1)
    return (weights @ values).mean(1).view(-1, h, w)


def projected(of: Projections, which: int, *maps: Tensor) -> Tensor:
    """Coded cells of maps (B,C,h,w) side by side, projected: (B,J,.,d)."""
    cells = [
        of.dropout(x.flatten(2).mT + positions(x.shape[2] * x.shape[3], x.shape[1], x.device)) for x in maps
    ]
    linear = cast(nn.Linear, of.linears[which])
    return cast(Tensor, linear(torch.cat(cells, 1))).unflatten(2, (of.heads, -1)).transpose(1, 2)
