"""HDMNet: hierarchical dense correlation distillation.

Peng, Tian, Wu, Wang, Liu, Su, Jia, "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation",
CVPR 2023, https://arxiv.org/abs/2303.14652

A small transformer looks at query and supports apart, at three scales; on each, query cells attend to the
supports' foreground, and how well they correlate at a coarse scale teaches the next finer one. Base learner
and ensemble are BAM's.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.base import Cut, Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import conv_of_parts, masked_average, nearest, reduced, reduction
from fss.heads.dense_correlation import HierarchicalMatching, divergences
from fss.heads.ensemble import Ensemble, ShotWeights, adjustments, base_map, gram
from fss.heads.mix_transformer import HEADS
from fss.heads.prior import likenesses
from fss.ops import resize, segmentation_loss, without_foreground

_LEVELS = tuple(f"level{i}" for i in range(len(HEADS)))
_WEIGHT = 10.0  # of the similarity among the transformer's inputs


class HDMNet(Head):
    """HDMNet on stages 2 and 3, with similarities on the neck's map before its ReLU and on stage 4.

    A support is encoded from its image with all but the object made mean colour. Without foreground in any
    support, nothing is matched and similarities are 0 ("empty_support").

    Args:
        level: the maps that are reduced to `width` channels, side by side, at the size of the finest.
        deep: the maps of the similarities.
        style: the map whose channels' cosines tell how differently two images look.
        width: channels after the reduction.
        embed: channels of the transformer, a multiple of 8.
        dropout: share of channels dropped after the reduction.
        noise: share of single values dropped in the transformer.
        distillation: weight of the loss by which coarse correlations teach finer ones.
        ensemble: whether base and meta learner are merged; without, the meta learner answers alone.
        psi: of several supports, how their differences in looks become one: their "mean"; or weighted as in
            "published" files, by weights that nothing ever trained, and which belong to one number of
            supports; with another all count alike ("equal_weights").
        train_shots: K of its training, from the framework: no setting.
    """

    levels: tuple[str, ...] = ("stage3", "stage2", "neck:sum", "stage4", "base")
    support_cut: Cut = "image"
    encodes_mask = True
    query_only = ("base",)

    def __init__(
        self, channels: Mapping[str, int], level: str | tuple[str, ...] = ("stage3", "stage2"),
        deep: str | tuple[str, ...] = ("neck:sum", "stage4"), style: str = "stage2", width: int = 256,
        embed: int = 64, dropout: float = 0.5, noise: float = 0.1, distillation: float = 1.0,
        ensemble: bool = True, psi: Literal["mean", "published"] = "mean", train_shots: int = 1,
    ) -> None:  # fmt: skip
        _check(width, embed, dropout, noise, distillation)
        self.reduced = (level,) if isinstance(level, str) else tuple(level)
        self.deep, self.style = (deep,) if isinstance(deep, str) else tuple(deep), style
        asked = (*self.reduced, *self.deep, *([style, "base"] if ensemble else []))
        self.levels = tuple(dict.fromkeys(asked))
        super().__init__(channels)
        self.width, self.distillation, self.psi = width, distillation, psi
        inputs, likeness = sum(channels[name] for name in self.reduced), len(self.deep)
        self.down_query, self.down_supp = (reduction(inputs, width, dropout) for _ in range(2))
        self.query_merge, self.supp_merge = (_merge(n, embed) for n in (2 * width + likeness, 2 * width))
        self.transformer = HierarchicalMatching(embed, likeness, noise)
        self.shots = ShotWeights(train_shots if psi == "published" else 1, back=False).requires_grad_(False)
        self.ensemble = Ensemble() if ensemble else None

    def groups(self) -> list[dict[str, Any]]:
        """The transformer learns at the configured rate, all else ten times as fast."""
        own = set(self.transformer.parameters())
        others = [p for p in self.parameters() if p.requires_grad and p not in own]
        return [
            {"params": [*self.transformer.parameters()], "factor": 1.0},
            {"params": others, "factor": 10.0},
        ]

    def encode(self, features: Features) -> Features:
        """The reduced map's part of the transformer's input, the maps of the similarities as they are, the
        Gram matrix and the base classes' logits:
        {"merged": (B,E,h,w), each of `deep`: (B,C,.,.), "gram": (B,C',C'), "base": (B,1+N,.,.)}."""
        x = self._reduced(features, self.down_query)
        with torch.autocast(x.device.type, enabled=False):
            merged = F.conv2d(x.float(), self._query_weight()[0])
        base = {} if self.ensemble is None else {"base": features["base"]}
        return {"merged": merged, **self._compared(features), **base}

    def encode_support(self, features: Features) -> Features:
        """All that needs no query: the levels of the transformer, the prototype, and what a query is compared
        with: {each of `_LEVELS`: (B,.,.,E), "vector": (B,C), each of `deep`: (B,C',.,.), "gram": ...}."""
        x = self._reduced(features, self.down_supp)
        with torch.autocast(x.device.type, enabled=False):
            x, size = x.float(), (x.shape[-2], x.shape[-1])
            shares = resize((features["mask"] == 1).float()[:, None], size, self.corners)[:, 0]  # (B,h,w)
            vector = masked_average(x, shares)
            weight = self.supp_merge.get_parameter("0.weight")
            merged = conv_of_parts(weight, [x, vector[..., None, None]], size).relu()
            levels = dict(zip(_LEVELS, self.transformer.encode(merged), strict=True))
        return {**levels, "vector": vector, **self._compared(features)}

    def _reduced(self, features: Features, layers: nn.Sequential) -> Tensor:
        return reduced(layers, [features[name] for name in self.reduced], self.corners)

    def _compared(self, features: Features) -> Features:
        """What is of the frozen network alone."""
        deep = {name: features[name] for name in self.deep}
        return deep if self.ensemble is None else {**deep, "gram": gram(features[self.style])}

    def _query_weight(self) -> tuple[Tensor, Tensor]:
        """The query's 1x1 convolution: of its reduced map, and of prototype and similarities."""
        weight = self.query_merge.get_parameter("0.weight")
        return weight[:, : self.width], weight[:, self.width :]

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Figure 2: matching at three levels, and the ensemble with the base learner."""
        notes = {"empty_support": without_foreground(episodes.support_masks)}
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            meta, correlations = self._meta(episodes, self._similarity(episodes))
            losses = self._losses(episodes, meta, correlations)
            if self.ensemble is None:
                return HeadOutput(meta, losses, notes)
            each = adjustments(episodes.query["gram"], episodes.support["gram"])  # (B,K)
            if self.psi == "published":
                notes["equal_weights"] = self.shots.unlike(each)
            psi = (self.shots(each) * each).sum(1)  # (B,)
            logits = self.ensemble(meta, psi, base_map(episodes, meta))
        return HeadOutput(logits, losses, notes)

    def _similarity(self, episodes: Encoded) -> Tensor:
        """Of each map of `deep`, every query cell's largest cosine with the supports' foreground, the mean
        over supports: (B,N,h,w) on the cells of the reduced map."""
        size = (episodes.query["merged"].shape[-2], episodes.query["merged"].shape[-1])
        maps = []
        for name in self.deep:
            support = episodes.support[name]  # (B,K,C,h',w')
            masks = nearest(episodes.support_masks, (support.shape[-2], support.shape[-1])) == 1
            each = likenesses(episodes.query[name], support, masks.float())  # (B,K,.,.)
            maps.append(resize(each.mean(1, keepdim=True), size, episodes.corners))
        return torch.cat(maps, 1)

    def _meta(self, episodes: Encoded, similarity: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The meta learner's logits (B,2,h,w), and each level's correlation map, finest first."""
        merged, vector = episodes.query["merged"], episodes.support["vector"].mean(1)  # (B,E,h,w), (B,C)
        parts = [vector[..., None, None], _WEIGHT * similarity]
        size = (merged.shape[-2], merged.shape[-1])
        x = (merged + conv_of_parts(self._query_weight()[1], parts, size)).relu()
        supports = [episodes.support[level] for level in _LEVELS]
        return self.transformer(
            self.transformer.encode(x), supports, episodes.support_masks, similarity, episodes.corners
        )

    def _losses(self, episodes: Encoded, meta: Tensor, correlations: list[Tensor]) -> dict[str, Tensor]:
        target = episodes.query_mask
        if target is None:
            return {}
        distilled = self.distillation * divergences(correlations, target).mean()
        if self.ensemble is None:
            return {"distillation": distilled}
        return {
            "meta": segmentation_loss(meta, target, False, episodes.corners), "distillation": distilled,
        }  # fmt: skip

    def explain(self, episodes: Encoded) -> list[Panel]:
        """Similarities, correlations of each level, coarse to fine, from 0 to 1 over the query's cells, and
        what meta and base learner say."""
        similarity = self._similarity(episodes)
        meta, correlations = self._meta(episodes, similarity)
        alike = [
            Panel(f"similarity, {name}", x.clamp(0, 1), "query")
            for name, x in zip(self.deep, similarity.unbind(1), strict=True)
        ]
        dense = [
            Panel(f"correlation, {x.shape[-2]} x {x.shape[-1]} cells", _stretched(x), "query")
            for x in reversed(correlations)
        ]
        panels = [*alike, *dense, Panel("meta learner", meta.softmax(1)[:, 1], "query")]
        if self.ensemble is None:
            return panels
        return [*panels, Panel("any base class", base_map(episodes, meta)[:, 0].clamp(0, 1), "query")]


def _stretched(x: Tensor) -> Tensor:
    """Maps (B,h,w), each from 0 to 1."""
    least, most = x.flatten(1).aminmax(dim=1)
    return (x - least[:, None, None]) / (most - least).clamp(min=1e-7)[:, None, None]


def _merge(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(inplace=True))


def _check(width: int, embed: int, dropout: float, noise: float, distillation: float) -> None:
    if width < 1 or embed < 1 or embed % max(HEADS):
        raise ValueError(f"width={width}, embed={embed}; allowed: 1 or more, and multiples of {max(HEADS)}")
    if not 0 <= dropout < 1 or not 0 <= noise < 1 or not 0 <= distillation < math.inf:
        raise ValueError(
            f"dropout={dropout}, noise={noise}, distillation={distillation}; allowed: 0 to below 1 for the "
            "first two, 0 or more"
        )
