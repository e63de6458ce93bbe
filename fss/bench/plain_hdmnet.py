"""HDMNet as one would write it down: what the head's fast ways are held against.

Every query cell meets every support cell, those outside the mask as zeros; attention is two products and a
softmax; norms stand apart from convolutions; three convolutions in a row are three; a support is encoded anew
in each episode.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.bench.plain import up
from fss.bench.plain_bam import distance
from fss.bench.plain_pfenet import largest
from fss.episode import Episode
from fss.heads.dense_correlation import FixedNorm, Merge
from fss.heads.hdmnet import HDMNet
from fss.heads.mix_transformer import Attention, Block, Matching, SelfAttention
from fss.model import FewShotModel
from fss.ops import normalise

Maps = dict[str, Tensor]


def hdmnet(model: FewShotModel, e: Episode, training: bool) -> tuple[Tensor, list[Tensor]]:
    """HDMNet's logits at image size, and those of its meta learner alone; nothing is distilled."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, HDMNet) and head.ensemble is not None
    query = frozen(model, normalise(e.query_image))
    x = head.down_query(torch.cat([query["stage3"], query["stage2"]], 1))  # (B,C,h,w)
    cells = (x.shape[-2], x.shape[-1])
    vectors, alike, levels, differ = [], [], [], []
    for image, mask in zip(e.support_images.unbind(1), e.support_masks.unbind(1), strict=True):
        inside = (mask == 1).float()[:, None]  # (B,1,H,W)
        support = frozen(model, normalise(image) * inside)
        reduced, soft = (
            head.down_supp(torch.cat([support["stage3"], support["stage2"]], 1)),
            up(inside, cells),
        )
        vector = (reduced * soft).sum((2, 3), keepdim=True) / (soft.sum((2, 3), keepdim=True) + 0.0005)
        levels.append(encoded(head, head.supp_merge(torch.cat([reduced, vector.expand_as(reduced)], 1))))
        small = F.interpolate(inside, cells)
        alike.append(torch.stack([largest(query[k], support[k] * small) for k in ("sum", "stage4")], 1))
        vectors.append(vector)
        differ.append(distance(query["stage2"], support["stage2"]))
    similarity = torch.stack(alike).mean(0)  # (B,2,h,w)
    vector = torch.stack(vectors).mean(0).expand_as(x)
    q = encoded(head, head.query_merge(torch.cat([x, vector, 10 * similarity], 1)))
    supports = [torch.stack(each, 1) for each in zip(*levels, strict=True)]
    meta = matched(head, q, supports, e.support_masks, similarity)
    psi = torch.stack(differ).mean(0)[:, None, None, None]
    base = 1 - query["base"].softmax(1)[:, :1]
    g, c = head.ensemble.gram_merge.weight.flatten(), head.ensemble.cls_merge.weight.flatten()
    background, foreground = (g[0] * meta.softmax(1) + g[1] * psi).chunk(2, 1)
    final = torch.cat([c[0] * background + c[1] * base, foreground], 1)
    return up(final, size), [meta] if training else []


@torch.no_grad()
def frozen(model: FewShotModel, x: Tensor) -> Maps:
    """Normalised images (B,3,H,W) -> stages 2 to 4, the neck's map before its ReLU, and the base logits."""
    net: Any = model.backbone
    neck: Any = model.neck
    assert model.classifier is not None
    out, x = {}, net.layer1(net.layer0(x.contiguous()))
    for i in (2, 3, 4):
        x = out[f"stage{i}"] = getattr(net, f"layer{i}")(x)
    pools = [up(pool(x), (x.shape[-2], x.shape[-1])) for pool in neck.features]
    out["sum"] = neck.bottleneck[:2](torch.cat([x, *pools], 1))
    return {**out, "base": model.classifier(out["sum"].relu())}


def encoded(head: HDMNet, x: Tensor) -> list[Tensor]:
    """(B,C,h,w) -> the levels' maps (B,C,h,w), finest first."""
    out = []
    for level in head.transformer.down_sample_layers:
        embed, *blocks, norm = cast(Any, level)
        x = last(embed.norm, embed.projection(x))
        for block in blocks:
            x = attended(block, x)
        x = last(norm, x)
        out.append(x)
    return out


def last(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer of the last axis on the channels of (B,C,h,w)."""
    return cast(Tensor, layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous())


def rows(x: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,hw,C)."""
    return x.flatten(2).transpose(1, 2)


def split(layer: Attention, x: Tensor) -> Tensor:
    """(B,n,C) -> (B,H,n,C/H)."""
    return x.view(*x.shape[:2], layer.heads, -1).transpose(1, 2)


def attended(block: Block, x: Tensor) -> Tensor:
    """A block of self-attention on (B,C,h,w)."""
    normed, own = last(block.norm1, x), cast(SelfAttention, block.attn)
    source = last(own.norm, own.sr(normed)) if own.reduction > 1 else normed
    layer = own.attn
    q = split(layer, layer.linear_q(rows(normed)))
    k, v = (split(layer, make(rows(source))) for make in (layer.linear_k, layer.linear_v))
    mixed = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3) @ v
    return added(block, x, layer.linear_o(mixed.transpose(1, 2).flatten(2)))


def added(block: Block | Matching, x: Tensor, mixed: Tensor) -> Tensor:
    """All that follows a block's attention, whose output is (B,hw,C)."""
    x = x + block.drop(mixed).transpose(1, 2).reshape(x.shape)
    return x + block.ffn.layers(last(block.norm2, x))


def matched(
    head: HDMNet, query: list[Tensor], supports: list[Tensor], masks: Tensor, similarity: Tensor
) -> Tensor:
    """Levels (B,C,h,w) and (B,K,C,h,w), finest first, masks (B,K,H,W), similarity (B,2,h,w) -> logits."""
    maps = []
    for x, theirs, pair in zip(query, supports, head.transformer.match_layers, strict=True):
        block, merge = cast(tuple[Matching, Merge], tuple(cast(Any, pair)))
        layer, size = block.attn.attn, (x.shape[-2], x.shape[-1])
        inside = F.interpolate((masks == 1).float(), size).flatten(1)[:, None, None]  # (B,1,1,Khw)
        source = block.norm1(theirs.permute(0, 1, 3, 4, 2).flatten(1, 3))  # (B,Khw,C)
        q = F.normalize(split(layer, layer.linear_q(rows(last(block.norm1, x)))), dim=3)
        k, v = F.normalize(split(layer, layer.linear_k(source)), dim=3), split(layer, layer.linear_v(source))
        mixed = ((q @ k.transpose(2, 3) / 0.1).softmax(2) * inside) @ v  # of (B,H,hw,Khw)
        x = added(block, x, layer.linear_o(mixed.transpose(1, 2).flatten(2)))
        joined = merge.conv(torch.cat([x, up(similarity, size)], 1))
        maps.append(norm(merge.bn, joined).relu())
    return decoded(head, maps)


def decoded(head: HDMNet, maps: list[Tensor]) -> Tensor:
    """The levels' maps, finest first -> logits (B,2,h,w)."""
    parse = head.transformer.parse_layers
    x = one_by_one(parse[2], maps[2])
    for i in (1, 0):
        x = F.interpolate(x, size=maps[i].shape[-2:], mode="bilinear", align_corners=False)
        x = x + one_by_one(parse[i], maps[i] + x)
    return one_by_one(head.transformer.cls, x)


def one_by_one(layers: Any, x: Tensor) -> Tensor:
    """Convolutions and norms in turn."""
    for layer in layers:
        x = norm(layer, x) if isinstance(layer, FixedNorm) else layer(x)
    return x


def norm(layer: FixedNorm, x: Tensor) -> Tensor:
    """A batch norm in evaluation mode."""
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5)
