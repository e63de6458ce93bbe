"""Votes, and a small decoder that learns from base classes what to make of them.

A head of this project's own. It begins exactly as `votes`, and learns an addition to its answer from maps
that know no class: votes on several levels, before and after the walk, each cell's nearest neighbours among
the supports' cells, and its cosines with prototypes of supports and query. No feature reaches the decoder, as
in Min et al., "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021, so that there is little of the
base classes to learn by heart.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.episode import IGNORE
from fss.heads.base import Encoded, Features, HeadOutput, Panel
from fss.heads.votes import MAP, Cells, Votes, support_mean, vote
from fss.ops import resize, without_foreground

INPUTS = "inputs"  # the decoder's
_LEVEL_TAU = 0.05  # temperature of the votes on single levels, whose likenesses differ more
# Factors that bring log-odds of a few units and cosines of a few tenths to the same size.
_LOG_ODDS = 0.25
_COSINES = 4.0
_MIDDLE = 0.6  # a usual cosine of nearest neighbours
_ADDED = 4.0  # log-odds of a unit of the decoder's output


class VotesDecoder(Votes):
    """Votes (`fss.heads.votes.Votes`), and what a decoder of three 3x3 convolutions adds to their log-odds.

    Args:
        width: channels of the decoder.
        caution: weight of the harm done to an episode: how much worse its losses are than without the
            decoder.
        All others as of `Votes`.
    """

    def __init__(
        self, channels: Mapping[str, int], level: str | list[str] | dict[str, float] = "stage4",
        tau: float = 0.035, trust: float = 9, walk: float = 0.7, walk_tau: float = 0.08, steps: int = 20,
        width: int = 48, caution: float = 2,
    ) -> None:  # fmt: skip
        super().__init__(channels, level, tau, trust, walk, walk_tau, steps)
        if width < 1 or caution < 0:
            raise ValueError(
                f"width={width}, caution={caution}; allowed: a width from 1 on, caution from 0 on"
            )
        self.caution = caution
        self.decoder = Decoder(16 + len(self.levels), width)

    def encode(self, features: Features) -> Features:
        """The joined map, and each level's own, all with cells of length 1."""
        with torch.autocast(features[self.levels[0]].device.type, enabled=False):
            own = {level: F.normalize(features[level].float(), dim=1) for level in self.levels}
        return super().encode(features) | own

    @torch.no_grad()
    def prepare(self, episodes: Encoded) -> Encoded:
        """The decoder's inputs, {INPUTS: (B,I,h,w)}.

        In training with several supports, two episodes of three, chosen by their seeds, have their first
        support alone, so that the decoder learns to answer with one support and with several.
        """
        shots = episodes.support_masks.shape[1]
        counts = [1 if self.training and seed % 3 else shots for seed in episodes.seeds]
        each = [first_supports(episodes.part(i, i + 1), k) for i, k in enumerate(counts)]
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            inputs = torch.cat([self._inputs(e) for e in ([episodes] if min(counts) == shots else each)])
        shown = (episodes.support_masks == 1).amax((2, 3), keepdim=True).long()  # (B,K,1,1)
        return replace(
            episodes, query={INPUTS: inputs}, support={}, support_masks=shown, photo=None, prepared=True
        )

    def forward(self, episodes: Encoded) -> HeadOutput:
        """The votes' log-odds, and what the decoder adds to them."""
        ready = episodes if episodes.prepared else self.prepare(episodes)
        inputs = ready.query[INPUTS]
        with torch.autocast(inputs.device.type, enabled=False):
            logits = self.answer(inputs)
        learns = episodes.query_mask is not None and self.training
        losses = self._losses(logits, inputs, episodes) if learns else {}
        return HeadOutput(logits, losses, {"empty_support": without_foreground(ready.support_masks)})

    def answer(self, inputs: Tensor) -> Tensor:
        """(B,I,h,w) -> logits (B,2,h,w): 0, and the foreground's log-odds."""
        odds = votes_in(inputs) + _ADDED * self.decoder(inputs)
        return torch.cat([torch.zeros_like(odds), odds], 1)

    def _losses(self, logits: Tensor, inputs: Tensor, episodes: Encoded) -> dict[str, Tensor]:
        """The soft IoU loss, and the harm: how much both losses rise above those of the votes alone."""
        mask, votes = episodes.query_mask, votes_in(inputs)
        assert mask is not None
        before = episode_losses(torch.cat([torch.zeros_like(votes), votes], 1), mask, episodes.corners)
        after = episode_losses(logits, mask, episodes.corners)  # (2,B)
        harm = (after - before).clamp(min=0).sum(0).mean()
        return {"soft_iou": after[1].mean(), "harm": self.caution * harm}

    def _inputs(self, episodes: Encoded) -> Tensor:
        """The decoder's inputs (B,16+L,h,w) with L levels; the second one is the votes' answer."""
        cells, shots = Cells.of(episodes), episodes.support_masks.shape[1]
        size = (episodes.query[MAP].shape[-2], episodes.query[MAP].shape[-1])
        votes = self._vote(cells, shots)
        odds = self._walk(cells, votes)
        levels = []
        for level in self.levels:
            own = Cells.of(episodes, level)
            grid = episodes.query[level].shape[-2:]
            lead = vote(own, shots, _LEVEL_TAU, self.trust).unflatten(1, grid)[:, None]  # (B,1,.,.)
            levels.append(resize(lead, size, episodes.corners).flatten(1))
        background, foreground = nearest(cells)  # (B,n) each
        area = cells.area.sum(1)  # (B,2)
        share = (area + 1).log().diff(dim=1).expand_as(odds)  # log-odds of the object's area in the supports
        maps = [
            *(_LOG_ODDS * x for x in (votes, odds, *levels, odds.mean(1, keepdim=True).expand_as(odds))),
            _COSINES * (foreground - _MIDDLE), _COSINES * (background - _MIDDLE),
            _COSINES * (foreground - background), cells.on_photo.float(), share / 2,
            *Prototypes.of(cells, odds).cosines(), torch.full_like(odds, math.log(shots)),
        ]  # fmt: skip
        return torch.stack(maps, 1).unflatten(2, size)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The panels of the votes, and the probability after the decoder."""
        final = self.answer(self.prepare(episodes).query[INPUTS]).softmax(1)[:, 1]
        return [*super().explain(episodes), Panel("after the decoder", final, "query")]


def votes_in(inputs: Tensor) -> Tensor:
    """The votes' log-odds after the walk, (B,1,h,w), from the inputs; scaling by 4 loses no bit."""
    return inputs[:, 1:2] / _LOG_ODDS


def first_supports(episodes: Encoded, count: int) -> Encoded:
    """The same episodes with their first supports alone."""
    support = {k: x[:, :count] for k, x in episodes.support.items()}
    return replace(episodes, support=support, support_masks=episodes.support_masks[:, :count])


def episode_losses(logits: Tensor, masks: Tensor, corners: bool) -> Tensor:
    """Cross-entropy and soft IoU loss of each episode: logits (B,2,h,w), masks (B,H,W) -> (2,B).

    The soft IoU loss is 1 - IoU of the foreground's probability. Logits are resized to the masks; pixels of
    255 do not count.
    """
    lead = resize(logits[:, 1:] - logits[:, :1], (masks.shape[-2], masks.shape[-1]), corners)[:, 0]
    labelled, target = (masks != IGNORE).float(), (masks == 1).float()
    each = F.binary_cross_entropy_with_logits(lead, target, reduction="none") * labelled
    entropy = each.sum((1, 2)) / labelled.sum((1, 2)).clamp(min=1)
    probability = lead.sigmoid() * labelled
    intersection = (probability * target).sum((1, 2))
    union = (probability + target).sum((1, 2)) - intersection
    return torch.stack([entropy, 1 - intersection / union.clamp(min=1)])


class Decoder(nn.Module):
    """Three 3x3 convolutions, two of them residual, and a last one that is zero at the start."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.get_parameter("bias"))

    def forward(self, maps: Tensor) -> Tensor:
        """(B,I,h,w) -> (B,1,h,w)."""
        x = self.first(maps).relu()
        x = x + self.second(x).relu()
        x = x + self.third(x).relu()
        return self.last(x)


def nearest(cells: Cells) -> tuple[Tensor, Tensor]:
    """Largest cosine of each query cell with the supports' background cells, and with their foreground cells.

    A cell belongs to the side that covers more of it.

    Returns:
        (B,n) each; -1 if there is no such cell.
    """
    background, foreground = cells.area.unbind(2)  # (B,m) each
    sides = torch.stack([background > foreground, foreground > background])  # (2,B,m)
    best = cells.query.new_full((2, *cells.query.shape[:2]), -1.0)
    count = cells.query.shape[1]
    for keys, there in zip(cells.support.split(count, 1), sides.split(count, 2), strict=True):
        cosines = cells.query @ keys.mT  # (B,n,n), a support's
        largest = torch.stack([cosines.masked_fill(~side[:, None], -1.0).amax(2) for side in there])
        best = torch.maximum(best, largest)
    return best[0], best[1]


class Prototypes(NamedTuple):
    """Mean features of background and foreground, in the supports and in the query itself.

    The supports' mean is taken from all cells first. Prototypes of the query follow Fan et al., "Self-Support
    Few-Shot Semantic Segmentation", ECCV 2022.

    Attributes:
        query: the query's cells, (B,n,C), at length 1.
        support, own: prototypes of supports and of the query, (B,2,C), background first, at length 1.
    """

    query: Tensor
    support: Tensor
    own: Tensor

    @classmethod
    def of(cls, cells: Cells, odds: Tensor) -> "Prototypes":
        """Prototypes; the query's foreground is its cells of half the largest probability or more.

        Args:
            odds: log-odds (B,n) of the foreground in the query's cells.
        """
        mean = support_mean(cells)
        query, support = F.normalize(cells.query - mean, dim=2), F.normalize(cells.support - mean, dim=2)
        likely = odds.sigmoid() * cells.on_photo
        sure = likely * (likely >= 0.5 * likely.amax(1, keepdim=True))
        weights = torch.stack([(1 - likely) * cells.on_photo, sure], 1)  # (B,2,n)
        prototypes = (cells.area.mT @ support, weights @ query)  # (B,2,C) each
        return cls(query, *(F.normalize(x, dim=2) for x in prototypes))

    def cosines(self) -> list[Tensor]:
        """Seven maps (B,n): cosines of each query cell with the supports' foreground and background and their
        difference; the same with the query's own; and the cosine of both foregrounds."""
        maps = []
        for prototypes in (self.support, self.own):
            background, foreground = (prototypes @ self.query.mT).unbind(1)
            maps += [2 * foreground, 2 * background, foreground - background]
        agree = (self.support[:, 1] * self.own[:, 1]).sum(1, keepdim=True)  # (B,1)
        return [*maps, agree.expand_as(maps[0])]
