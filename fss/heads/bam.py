"""BAM: learning what not to segment.

Lang, Cheng, Tu, Han, "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation", CVPR 2022,
https://arxiv.org/abs/2203.07615

A network of the base classes tells where their objects are; a meta learner, where the query shows the
supports' class. Four learned numbers merge both, with one more of each episode: how differently its images
look.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fss.heads.base import Cut, Encoded, Features, Head, HeadOutput, Panel, check_cut
from fss.heads.cells import as_computed, reduced, reduction, support_vectors
from fss.heads.context import MetaLearner
from fss.heads.ensemble import Ensemble, ShotWeights, adjustments, base_map, gram
from fss.heads.prior import support_priors
from fss.ops import segmentation_loss, without_foreground


class BAM(Head):
    """BAM on stages 2 and 3, with a prior from stage 4 and the base network's logits.

    Without foreground in any support their average and the prior are 0, and the answer is what the layers
    make of that ("empty_support"). Weights of several supports are learned for one number of them; with
    another, all count alike ("equal_weights").

    Args:
        level: the maps that are reduced to `width` channels, side by side, at the size of the finest.
        deep: the map of the prior.
        style: the map whose channels' cosines tell how differently two images look.
        cut: what a support's mask cuts before the network goes on, as of `Head.support_cut`: "stage4", as
            published, if the backbone can go on from stage 3.
        width: channels after the reduction.
        dropout: share of channels dropped after the reduction.
        ensemble: whether base and meta learner are merged; without, the meta learner answers alone, and no
            base network is needed.
        train_shots: K of its training, from the framework: no setting.
    """

    levels: tuple[str, ...] = ("stage3", "stage2", "stage4", "base")
    support_cut: Cut = "stage4"
    query_only = ("base",)

    def __init__(
        self, channels: Mapping[str, int], level: str | tuple[str, ...] = ("stage3", "stage2"),
        deep: str = "stage4", style: str = "stage2", cut: Cut = "stage4", width: int = 256,
        dropout: float = 0.5, ensemble: bool = True, train_shots: int = 1,
    ) -> None:  # fmt: skip
        if width < 1 or not 0 <= dropout < 1:
            raise ValueError(f"width={width}, dropout={dropout}; allowed: 1 or more, and 0 to below 1")
        self.reduced = (level,) if isinstance(level, str) else tuple(level)
        self.deep, self.style, self.support_cut = deep, style, cut
        self.styled = ensemble or train_shots > 1  # whether anything depends on it
        asked = (*self.reduced, deep, *([style] if self.styled else []), *(["base"] if ensemble else []))
        self.levels = tuple(dict.fromkeys(asked))
        check_cut(cut, self.levels)
        super().__init__(channels)
        inputs = sum(channels[name] for name in self.reduced)
        self.down_query, self.down_supp = (reduction(inputs, width, dropout) for _ in range(2))
        self.meta = MetaLearner(width)
        self.shots = ShotWeights(train_shots)
        self.ensemble = Ensemble() if ensemble else None

    def encode(self, features: Features) -> Features:
        """The reduction, the prior's map as it is, the Gram matrix, and the base classes' logits:
        {"reduced": (B,C,h,w), "deep": (B,C',.,.), "gram": (B,C",C"), "base": (B,1+N,.,.)}."""
        base = {} if self.ensemble is None else {"base": features["base"]}
        return self._encoded(features, self.down_query) | base

    def encode_support(self, features: Features) -> Features:
        """The same, with the supports' own reduction and without logits."""
        return self._encoded(features, self.down_supp)

    def _encoded(self, features: Features, layers: nn.Sequential) -> Features:
        maps = [features[name] for name in self.reduced]
        out = {"reduced": reduced(layers, maps, self.corners), "deep": features[self.deep]}
        if self.styled:
            out["gram"] = gram(features[self.style])
        return out

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Figure 3: both learners, and their ensemble."""
        target = episodes.query_mask
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            psi = self._psi(episodes)  # (B,K)
            notes = {
                "empty_support": without_foreground(episodes.support_masks),
                "equal_weights": self.shots.unlike(psi),
            }
            weights = self.shots(psi)  # (B,K)
            meta = self._meta(episodes, weights)
            if self.ensemble is None:
                return HeadOutput(meta, notes=notes)
            logits = self.ensemble(meta, (weights * psi).sum(1), base_map(episodes, meta))
        losses = {}
        if target is not None:
            losses["meta"] = segmentation_loss(meta, target, False, episodes.corners)
        return HeadOutput(logits, losses, notes)

    def _psi(self, episodes: Encoded) -> Tensor:
        """How differently query and each support look (B,K); 0 where nothing depends on it."""
        if not self.styled:
            return torch.zeros(episodes.support_masks.shape[:2], device=episodes.support_masks.device)
        return adjustments(episodes.query["gram"], episodes.support["gram"])

    def _meta(self, episodes: Encoded, weights: Tensor) -> Tensor:
        """The meta learner's logits (B,2,h,w), with supports weighted (B,K)."""
        query = episodes.query["reduced"]
        vector = support_vector(episodes, weights)[..., None, None]  # (B,C,1,1)
        prior = self._prior(episodes, weights)  # (B,1,h',w')
        with as_computed(query):
            parts = query, vector.to(query.dtype), prior.to(query.dtype)
            return self.meta(*parts, episodes.corners).float()

    def _prior(self, episodes: Encoded, weights: Tensor) -> Tensor:
        """The mean, weighted (B,K), of the supports' priors (B,1,h',w')."""
        return (weights[..., None, None] * support_priors(episodes, "deep")).sum(1, keepdim=True)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The prior, the meta learner's probability of foreground; and what the base network sees: which
        class, and how likely any of them."""
        psi = self._psi(episodes)
        weights = self.shots(psi)
        meta = self._meta(episodes, weights)
        several = weights.shape[1] > 1
        shown = [" ".join(f"{100 * w:.0f}%" for w in row) for row in weights.tolist()] if several else ()
        panels = [
            Panel("prior", self._prior(episodes, weights)[:, 0].clamp(0, 1), "query", captions=shown),
            Panel("meta learner", meta.softmax(1)[:, 1], "query"),
        ]
        if self.ensemble is None:
            return panels
        captions = [f"psi {x:.3f}" for x in (weights * psi).sum(1).tolist()]
        which = episodes.query["base"].argmax(1) - 1  # (B,.,.), -1 for background
        return [
            *panels,
            Panel("base learner", which, "query"),
            Panel("any base class", base_map(episodes, meta)[:, 0].clamp(0, 1), "query", captions=captions),
        ]


def support_vector(episodes: Encoded, weights: Tensor) -> Tensor:
    """The mean, weighted (B,K), of the supports' masked averages (B,C)."""
    each = support_vectors(episodes.support["reduced"], episodes.support_masks, episodes.corners)  # (B,K,C)
    return (weights[..., None] * each).sum(1)
