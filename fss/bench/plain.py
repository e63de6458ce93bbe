"""The methods as one would write them down, on a model's parameters: what the fast paths are held against.

Float32, contiguous; nothing folded, cached or left out: norms apart from convolutions, pools concatenated
at full size, autograd through resized logits in CWT's inner loop, every pixel projected in its attention,
tensors of pixels x centres x channels in ASGNet's clustering.
"""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fss.data.lists import Sample
from fss.episode import IGNORE, Episode
from fss.heads.asgnet import ASGNet
from fss.heads.context import Pyramid, size_of
from fss.heads.cwt import CWT, WeightTransformer, first_weight
from fss.heads.seeds import place_seeds
from fss.model import FewShotModel
from fss.ops import MEAN, STD, normalise


def up(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


@torch.no_grad()
def features(model: FewShotModel, images: Tensor, last: int = 4) -> dict[str, Tensor]:
    """The stages that the model asks for, up to `last`, and the neck's map where there is a neck and all of
    them."""
    net: Any = model.backbone
    neck: Any = model.neck
    out, x = {}, net.layer0(normalise(images).contiguous())
    for i in range(1, min(4 if neck or "stage4" in model.head.levels else 3, last) + 1):
        x = out[f"stage{i}"] = getattr(net, f"layer{i}")(x)
    if neck and last == 4:
        pools = [up(pool(x), (x.shape[-2], x.shape[-1])) for pool in neck.features]
        out["neck"] = neck.bottleneck(torch.cat([x, *pools], 1))
    return out


@torch.no_grad()
def blocks(model: FewShotModel, images: Tensor) -> dict[int, list[Tensor]]:
    """Stage -> each of its blocks' sum of branch and shortcut, (B,C,h,w)."""
    net: Any = model.backbone
    out: dict[int, list[Tensor]] = {}
    x = net.layer0(normalise(images).contiguous())
    for stage in (1, 2, 3, 4):
        out[stage] = []
        for block in getattr(net, f"layer{stage}"):
            out[stage].append(block.sum(x))
            x = out[stage][-1].relu()
    return out


def cwt(model: FewShotModel, e: Episode, training: bool = False) -> tuple[Tensor, list[Tensor]]:
    """CWT's logits at image size for one episode; it has no auxiliary ones."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, CWT) and head.transformer is not None
    support = features(model, e.support_images[0])["neck"]  # (K,C,h,w)
    weight = fit_classifier(
        support, e.support_masks[0], first_weight(0, head.width).to(support.device), head.steps, head.lr
    )
    query = F.normalize(features(model, e.query_image)["neck"], dim=1)  # (1,C,h,w)
    adapted = attend(head.transformer, weight[None], query)  # (1,2,C)
    return up((adapted @ query.flatten(2)).unflatten(2, query.shape[2:]), size), []


def fit_classifier(support: Tensor, masks: Tensor, first: Tensor, steps: int, lr: float) -> Tensor:
    """The inner loop by autograd: features (K,C,h,w), masks (K,H,W), first weights (2,C) -> (2,C)."""
    weight = first.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=lr)
    balance = float((masks == 0).sum()) / max(float((masks == 1).sum()), 1.0)
    loss_of = nn.CrossEntropyLoss(torch.tensor([1.0, balance], device=masks.device), ignore_index=IGNORE)
    with torch.enable_grad():
        for _ in range(steps):
            logits = up(F.conv2d(support, weight[:, :, None, None]), (masks.shape[-2], masks.shape[-1]))
            optimizer.zero_grad()
            loss_of(logits, masks).backward()
            optimizer.step()
    return weight.detach()


def attend(transformer: WeightTransformer, weight: Tensor, query: Tensor) -> Tensor:
    """Equation 4 with every pixel projected, as published (`start="published"`)."""
    heads, c = transformer.heads, weight.shape[2]
    pixels = query.flatten(2).transpose(1, 2)  # (B,hw,C)

    def project(x: Tensor) -> Tensor:
        return transformer.w_qkvs(x).unflatten(2, (heads, c)).transpose(1, 2)  # (B,heads,.,C)

    scores = project(weight) @ project(pixels).transpose(2, 3) / c**0.5
    seen = transformer.attention_dropout(scores.softmax(3)) @ project(pixels)
    rows = transformer.fc(seen.transpose(1, 2).flatten(2))
    return transformer.layer_norm(weight + transformer.dropout(rows))


def asgnet(model: FewShotModel, e: Episode, training: bool) -> tuple[Tensor, list[Tensor]]:
    """ASGNet's logits at image size, and those of its pyramid's scales."""
    head, size = model.head, (e.query_image.shape[-2], e.query_image.shape[-1])
    assert isinstance(head, ASGNet) and isinstance(head.context, Pyramid)
    reduced = lambda images: _reduced(head, features(model, images))  # noqa: E731
    query = reduced(e.query_image)  # (B,C,h,w)
    supports = [reduced(e.support_images[:, k]) for k in range(e.support_images.shape[1])]
    guides, totals = [], []
    for b in range(len(query)):
        found = [_cluster(head, s[b], e.support_masks[b, k], training) for k, s in enumerate(supports)]
        prototypes = torch.cat(found)  # (N,C)
        likeness = F.cosine_similarity(prototypes[:, :, None, None], query[b : b + 1], dim=1, eps=1e-7)
        guides.append(prototypes[likeness.argmax(0)].permute(2, 0, 1))
        totals.append(likeness.sum(0, keepdim=True))
    pair = torch.cat([query, torch.stack(guides)], 1)
    logits, scales = pyramid(head.context, pair, torch.stack(totals), training)
    return up(logits, size), scales


def _reduced(head: ASGNet, found: dict[str, Tensor]) -> Tensor:
    return head.down_conv(torch.cat([found["stage3"], found["stage2"]], 1))


@torch.no_grad()
def _cluster(head: ASGNet, x: Tensor, mask: Tensor, training: bool) -> Tensor:
    """Prototypes (N,C) of one support (C,h,w)."""
    size = (x.shape[-2], x.shape[-1])
    seeds = torch.from_numpy(place_seeds((mask == 1).cpu().numpy(), size, head.prototypes, head.cells))
    soft = up((mask == 1).float()[None, None], size)[0, 0]
    if len(seeds) < 2 or not (soft == 1).any():
        return ((x * soft).sum((1, 2)) / (soft.sum() + 0.0005))[None]
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in soft.shape), indexing="ij")).to(x)
    cells = torch.cat([x, grid])[:, soft == 1]  # (C+2,P)
    centres = torch.stack([torch.cat([x, grid])[:, r, c] for r, c in seeds.tolist()], 1)  # (C+2,N)
    for _ in range(head.iterations[0 if training else 1]):
        gaps = (cells[:, :, None] - centres[:, None]) ** 2  # (C+2,P,N)
        share = (-(gaps[:-2].sum(0) + gaps[-2:].sum(0) / 100).sqrt()).exp()
        centres = (cells[:, :, None] * (share / share.sum(0, keepdim=True))).sum(1)
    return centres[:-2].T


def pyramid(context: Pyramid, pair: Tensor, total: Tensor, auxiliary: bool) -> tuple[Tensor, list[Tensor]]:
    """Logits, and those of each scale: pair (B,2C,h,w) of query and guide, total (B,1,h,w) of likeness."""
    at = (pair.shape[-2], pair.shape[-1])
    maps: list[Tensor] = []
    logits: list[Tensor] = []
    for i, side in enumerate(context.sizes):
        size = size_of(side, at)
        pooled = F.adaptive_avg_pool2d(pair, size)
        x = context.corr_conv[i](torch.cat([pooled, up(total, size)], 1))
        if i:
            x = x + context.alpha_conv[i - 1](torch.cat([x, up(maps[-1], size)], 1))
        x = x + context.beta_conv[i](x)
        maps.append(up(x, at))
        logits.append(context.inner_cls[i](x))
    x = context.res1(torch.cat(maps, 1))
    return context.cls(x + context.res2(x)), logits


def load(
    samples: list[Sample], class_id: int, size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """An episode's images (K+1,3,S,S) float32 and masks (K+1,S,S), read and flipped with OpenCV in floats."""
    images, masks = [], []
    for sample in samples:
        image: Any = cv2.imread(str(sample.image))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32)
        mask: Any = np.array(Image.open(sample.mask))
        if random.random() < 0.5:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        if random.random() < 0.5:
            image, mask = cv2.flip(image, 0), cv2.flip(mask, 0)
        scale = size / max(mask.shape)
        h, w = (max(int(side * scale) // 8 * 8, 8) for side in mask.shape)
        canvas: Any = np.zeros((size, size, 3), np.float32)
        labels = np.full((size, size), 255, np.int64)
        canvas[:h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        found = cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)
        labels[:h, :w] = np.where(found == class_id, 1, np.where(found == 255, 255, 0))
        canvas = (canvas / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        images.append(torch.from_numpy(np.ascontiguousarray(canvas.transpose(2, 0, 1))))
        masks.append(torch.from_numpy(labels))
    return torch.stack(images), torch.stack(masks)
