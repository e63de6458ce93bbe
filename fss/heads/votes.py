"""Votes: every support cell votes for the query cells that look like it; then cells that look alike agree.

A head of this project's own, without anything to learn. The votes are attention with masks as values (Vaswani
et al., "Attention Is All You Need", NeurIPS 2017), balanced between object and background; the agreement is
the random walk of Zhou, Bousquet, Lal, Weston, Schölkopf, "Learning with Local and Global Consistency",
NIPS 2003, on the query's own cells.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import joined, mask_areas
from fss.ops import exporting, repeat, without_foreground

MAP = "map"  # the one map that is kept of an image
_LEAST = 1e-30  # a share of votes that counts as none


class Votes(Head):
    """Attention from the query's cells to all cells of all supports, then a walk over the query's cells.

    Nothing is averaged before it has voted, so that a fifth support says what four others did not show.

    Args:
        level: the feature map to compare on, or several, as of `fss.heads.cells.joined`; as a mapping, each
            with the weight by which its cells of length 1 are multiplied.
        tau: temperature of the votes: cosine similarity is divided by it.
        trust: supports after which half of the votes' balance is left. Areas of object and background in K
            supports say how much of each a query will show, and the more so the more supports there are:
            votes are divided by their class's area to the power of trust / (trust + K).
        walk: share of its answer that a cell takes from cells that look like it; 0 for no walk.
        walk_tau: temperature of that likeness, on features from which the supports' mean is taken.
        steps: of the walk; what is left over after them is `walk` to their power.
    """

    def __init__(
        self, channels: Mapping[str, int], level: str | list[str] | dict[str, float] = "stage4",
        tau: float = 0.035, trust: float = 9, walk: float = 0.7, walk_tau: float = 0.08, steps: int = 20,
    ) -> None:  # fmt: skip
        if not (tau > 0 and walk_tau > 0 and trust >= 0 and 0 <= walk < 1 and steps >= 0):
            raise ValueError(
                f"tau={tau}, walk_tau={walk_tau}, trust={trust}, walk={walk}, steps={steps}; allowed: "
                "temperatures above 0, trust and steps from 0 on, walk from 0 to below 1"
            )
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        self.weights = list(level.values()) if isinstance(level, dict) else []
        if min(self.weights, default=1) <= 0:
            raise ValueError(f"level={level}; allowed: weights above 0")
        super().__init__(channels)
        self.tau, self.trust = tau, trust
        self.walk, self.walk_tau, self.steps = walk, walk_tau, steps

    def encode(self, features: Features) -> Features:
        """The joined map, cells of length 1: {MAP: (B,C,h,w)}."""
        with torch.autocast(features[self.levels[0]].device.type, enabled=False):
            return {MAP: F.normalize(joined(features, self.levels, self.corners, self.weights), dim=1)}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Vote, walk; the logits are the log-odds of the foreground and 0."""
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            cells = Cells.of(episodes)
            odds = self._walk(cells, self._vote(cells, episodes.support_masks.shape[1]))
        odds = odds.unflatten(1, episodes.query[MAP].shape[-2:])[:, None]  # (B,1,h,w)
        logits = torch.cat([torch.zeros_like(odds), odds], 1)
        return HeadOutput(logits, {}, {"empty_support": without_foreground(episodes.support_masks)})

    def _vote(self, cells: "Cells", shots: int) -> Tensor:
        """Log-odds (B,n) of the foreground in each query cell."""
        return vote(cells, shots, self.tau, self.trust)

    def _walk(self, cells: "Cells", odds: Tensor) -> Tensor:
        """(1 - a) (I - a S)^-1 odds by its series: S is how query cells resemble each other, a = `walk`."""
        if self.walk == 0:
            return odds
        query = F.normalize(cells.query - support_mean(cells), dim=2)
        # In place: on a CPU new maps of this size cost as much as the products in them.
        alike = torch.baddbmm(query.new_zeros(()), query, query.mT, beta=0, alpha=1 / self.walk_tau)
        hidden = torch.eye(alike.shape[1], dtype=torch.bool, device=alike.device) | ~cells.on_photo[:, None]
        alike = alike.masked_fill_(hidden, -1e4).softmax(2)
        own = (1 - self.walk) * odds[..., None]
        return repeat(lambda x: own + self.walk * (alike @ x), odds[..., None], self.steps)[..., 0]

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The foreground's probability by votes and after the walk; support cells like that foreground."""
        cells, size = Cells.of(episodes), episodes.query[MAP].shape[-2:]
        votes = self._vote(cells, episodes.support_masks.shape[1])
        odds = self._walk(cells, votes)
        alike = attention(cells.support, cells.query, odds.sigmoid()[..., None], self.tau)[..., 0]  # (B,m)
        alike = alike / alike.amax(1, keepdim=True).clamp(min=_LEAST)
        alike = alike.unflatten(1, episodes.support[MAP].shape[1:2] + size)  # (B,K,h,w)
        return [
            Panel("votes", votes.sigmoid().unflatten(1, size), "query"),
            Panel("after the walk", odds.sigmoid().unflatten(1, size), "query"),
            Panel("like the foreground", alike, "support"),
        ]


class Cells(NamedTuple):
    """The cells of B episodes: n of the query's map, m of all shots' maps together.

    Attributes:
        query, support: features of length 1, (B,n,C) and (B,m,C).
        area: pixels of background and of foreground, (B,m,2).
        on_photo: whether a query's cell lies on the photo, more than on the canvas around it, (B,n).
    """

    query: Tensor
    support: Tensor
    area: Tensor
    on_photo: Tensor

    @classmethod
    def of(cls, e: Encoded, name: str = MAP) -> "Cells":
        """The cells of encoded episodes, on the map of a name."""
        query, support = e.query[name], e.support[name]  # (B,C,h,w), (B,K,C,h,w)
        size = (query.shape[-2], query.shape[-1])
        area = mask_areas(e.support_masks, size, e.corners)  # (B,K,2,h,w)
        on_photo = torch.ones_like(query[:, 0], dtype=torch.bool)  # (B,h,w)
        if e.photo is not None:
            off, on = mask_areas(e.photo[:, None].long(), size, e.corners)[:, 0].unbind(1)
            on_photo = on > off
        return cls(_list(query), _list(support).flatten(1, 2), _list(area).flatten(1, 2), on_photo.flatten(1))


def support_mean(cells: Cells) -> Tensor:
    """The mean of all supports' cells, (B,1,C)."""
    weight = cells.area.sum(2)  # (B,m)
    return (torch.einsum("bmc,bm->bc", cells.support, weight) / weight.sum(1).clamp(min=1)[:, None])[:, None]


def vote(cells: Cells, shots: int, tau: float, trust: float) -> Tensor:
    """Log-odds (B,n) of the foreground in each query cell, by the votes of all support cells; `tau` and
    `trust` as of `Votes`."""
    # Softmax's divisor is the same for both classes, and falls out of their ratio.
    share = attention(cells.query, cells.support, cells.area, tau)  # (B,n,2)
    least = _LEAST * cells.area.amax((1, 2), keepdim=True).clamp(min=1)
    balance = trust / (trust + shots)
    votes = (share + least).log() - balance * (cells.area.sum(1, keepdim=True) + least).log()
    return votes[..., 1] - votes[..., 0]


def _list(maps: Tensor) -> Tensor:
    """(...,C,h,w) -> (...,h*w,C)."""
    return maps.flatten(-2).transpose(-2, -1)


def attention(query: Tensor, keys: Tensor, values: Tensor, tau: float) -> Tensor:
    """softmax(query keys^T / tau) values: (B,n,C), (B,m,C), (B,m,D) -> (B,n,D).

    Keys come n at a time, so that no tensor is larger than n x n however many there are; what was summed is
    scaled when a larger likeness turns up (Milakov, Gimelshein, "Online normalizer calculation for softmax",
    arXiv 1805.02867).
    """
    if exporting():
        one_head = query[:, None], keys[:, None], values[:, None]  # ONNX knows no other kind
        return F.scaled_dot_product_attention(*one_head, scale=1 / tau)[:, 0]
    with_total = F.pad(values, (0, 1), value=1.0)  # (B,m,D+1)
    largest = query.new_full((*query.shape[:2], 1), -torch.inf)
    summed = query.new_zeros(())
    parts = (x.split(query.shape[1], 1) for x in (keys, with_total))
    for some_keys, some_values in zip(*parts, strict=True):
        alike = torch.baddbmm(query.new_zeros(()), query, some_keys.mT, beta=0, alpha=1 / tau)  # (B,n,.)
        before, largest = largest, torch.maximum(largest, alike.detach().amax(2, keepdim=True))
        summed = summed * (before - largest).exp() + alike.sub_(largest).exp_() @ some_values
    return summed[..., :-1] / summed[..., -1:]
