"""Votes, and a small decoder that learns from base classes what to make of them.

A head of this project's own. It begins exactly as `votes`, and learns an addition to its answer from maps
that know no class: votes on several levels, before and after the walk, and each cell's nearest neighbours
among the supports' cells. No feature reaches the decoder, as in Min et al., "Hypercorrelation Squeeze for
Few-Shot Segmentation", ICCV 2021, so that there is little of the base classes to learn by heart.
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

INPUTS = "inputs"  # what the decoder sees
_LEVEL_TAU = 0.05  # temperature of the votes on single levels, whose likenesses differ more
_LOG_ODDS = 0.25  # log-odds of a few units and cosines of a few tenths come to the same size
_COSINES = 4.0
_MIDDLE = 0.6  # a usual cosine of nearest neighbours
_ADDED = 4.0  # what a unit of the decoder's output adds to the log-odds


class VotesDecoder(Votes):
    """Votes (`fss.heads.votes.Votes`), and what a decoder of three 3x3 convolutions adds to their log-odds.

    Args:
        width: channels of the decoder.
        caution: weight of what an episode's losses exceed those of the votes alone by. What the decoder
            learns then helps most classes less and harms few.
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
        """All that the decoder sees, {INPUTS: (B,I,h,w)}.

        In training with several supports, two episodes of three show it their first support alone, as their
        seeds have it: so it learns to answer with one and with several.
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
        """Beside the trainer's cross-entropy the soft IoU, and what either exceeds that of the votes by."""
        mask, votes = episodes.query_mask, votes_in(inputs)
        assert mask is not None
        before = episode_losses(torch.cat([torch.zeros_like(votes), votes], 1), mask, episodes.corners)
        after = episode_losses(logits, mask, episodes.corners)  # (2,B)
        harm = (after - before).clamp(min=0).sum(0).mean()
        return {"soft_iou": after[1].mean(), "harm": self.caution * harm}

    def _inputs(self, episodes: Encoded) -> Tensor:
        """The maps that the decoder sees, (B,16+L,h,w); the second is the votes' answer."""
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
        """The panels of the votes, and the probability with what the decoder adds."""
        final = self.answer(self.prepare(episodes).query[INPUTS]).softmax(1)[:, 1]
        return [*super().explain(episodes), Panel("after the decoder", final, "query")]


def votes_in(inputs: Tensor) -> Tensor:
    """The votes' log-odds after the walk, (B,1,h,w), to the bit as they went into the inputs."""
    return inputs[:, 1:2] / _LOG_ODDS


def first_supports(episodes: Encoded, count: int) -> Encoded:
    """The same episodes with their first supports alone."""
    support = {k: x[:, :count] for k, x in episodes.support.items()}
    return replace(episodes, support=support, support_masks=episodes.support_masks[:, :count])


def episode_losses(logits: Tensor, masks: Tensor, corners: bool) -> Tensor:
    """Cross-entropy, and one less the soft IoU of the foreground: logits (B,2,h,w), masks (B,H,W) -> (2,B).

    Logits are resized to the masks, and pixels of 255 left out.
    """
    lead = resize(logits[:, 1:] - logits[:, :1], (masks.shape[-2], masks.shape[-1]), corners)[:, 0]
    known, there = (masks != IGNORE).float(), (masks == 1).float()
    each = F.binary_cross_entropy_with_logits(lead, there, reduction="none") * known
    entropy = each.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
    likely = lead.sigmoid() * known
    both = (likely * there).sum((1, 2))
    either = (likely + there).sum((1, 2)) - both
    return torch.stack([entropy, 1 - both / either.clamp(min=1)])


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
    """Each query cell's largest cosine with cells of the supports that are mostly background, and mostly
    foreground: (B,n) each, -1 where there are none."""
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
    """Means of cells of length 1, less the supports' mean: of the supports' background and foreground, and of
    the query's own, as an answer has them; all at length 1.

    A query that supports itself is of Fan et al., "Self-Support Few-Shot Semantic Segmentation", ECCV 2022.

    Attributes:
        query: the query's cells, (B,n,C).
        support, own: (B,2,C), background first.
    """

    query: Tensor
    support: Tensor
    own: Tensor

    @classmethod
    def of(cls, cells: Cells, odds: Tensor) -> "Prototypes":
        """Of an answer's log-odds (B,n). The surest cells alone are the query's own foreground: those of half
        the largest probability or more."""
        mean = support_mean(cells)
        query, support = F.normalize(cells.query - mean, dim=2), F.normalize(cells.support - mean, dim=2)
        likely = odds.sigmoid() * cells.on_photo
        sure = likely * (likely >= 0.5 * likely.amax(1, keepdim=True))
        weights = torch.stack([(1 - likely) * cells.on_photo, sure], 1)  # (B,2,n)
        theirs, own = cells.area.mT @ support, weights @ query  # (B,2,C) each
        return cls(query, F.normalize(theirs, dim=2), F.normalize(own, dim=2))

    def cosines(self) -> list[Tensor]:
        """Of each query cell, to the supports' foreground and background and their difference, to the query's
        own likewise, and of both foregrounds to each other: (B,n) each."""
        found = []
        for prototypes in (self.support, self.own):
            background, foreground = (prototypes @ self.query.mT).unbind(1)
            found += [2 * foreground, 2 * background, foreground - background]
        agree = (self.support[:, 1] * self.own[:, 1]).sum(1, keepdim=True)  # (B,1)
        return [*found, agree.expand_as(found[0])]
