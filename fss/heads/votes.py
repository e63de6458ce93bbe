"""Votes: every support cell votes for the query cells that look like it; then cells that look alike agree.

A head of this project's own, without anything to learn. The votes are attention with masks as values (Vaswani
et al., "Attention Is All You Need", NeurIPS 2017), balanced between object and background; the agreement is
the random walk of Zhou, Bousquet, Lal, Weston, Schölkopf, "Learning with Local and Global Consistency",
NIPS 2003, on the query's own cells.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import joined, mask_areas
from fss.ops import repeat, without_foreground

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
        walk_tau: temperature of that look, on features from which the supports' mean is taken.
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
            lead = self._walked(episodes, self._voted(episodes))
        lead = lead.unflatten(1, episodes.query[MAP].shape[-2:])[:, None]  # (B,1,h,w)
        logits = torch.cat([torch.zeros_like(lead), lead], 1)
        return HeadOutput(logits, {}, {"empty_support": without_foreground(episodes.support_masks)})

    def _voted(self, e: Encoded) -> Tensor:
        """Log-odds (B,n) of the foreground in each of n = h*w query cells."""
        query, support = _cells(e.query[MAP]), _support_cells(e)  # (B,n,C), (B,K*h*w,C)
        area = _areas(e)  # (B,K*h*w,2)
        # Softmax's divisor is the same for both classes, and falls out of their ratio.
        share = attention(query, support, area, self.tau)  # (B,n,2)
        least = _LEAST * area.amax((1, 2), keepdim=True).clamp(min=1)
        balance = self.trust / (self.trust + e.support[MAP].shape[1])
        votes = (share + least).log() - balance * (area.sum(1, keepdim=True) + least).log()
        return votes[..., 1] - votes[..., 0]

    def _walked(self, e: Encoded, lead: Tensor) -> Tensor:
        """(1 - a) (I - a S)^-1 lead by its series: S how query cells look at each other, a = `walk`."""
        if self.walk == 0:
            return lead
        weight = _areas(e).sum(2)  # (B,K*h*w)
        mean = torch.einsum("bmc,bm->bc", _support_cells(e), weight) / weight.sum(1).clamp(min=1)[:, None]
        cells = F.normalize(_cells(e.query[MAP]) - mean[:, None], dim=2)
        look = cells @ cells.transpose(1, 2) / self.walk_tau  # (B,n,n)
        hidden = torch.eye(look.shape[1], dtype=torch.bool, device=look.device) | ~_on_photo(e)[:, None]
        look = look.masked_fill(hidden, -1e4).softmax(2)
        own = (1 - self.walk) * lead[..., None]
        return repeat(lambda x: own + self.walk * (look @ x), lead[..., None], self.steps)[..., 0]

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The odds that votes alone give, those after the walk, and whom the foreground was told by."""
        e, size = episodes, episodes.query[MAP].shape[-2:]
        voted = self._voted(e)
        walked = self._walked(e, voted)
        heard = attention(_support_cells(e), _cells(e.query[MAP]), walked.sigmoid()[..., None], self.tau)
        heard = heard[..., 0] / heard.amax((1, 2), keepdim=True)[..., 0].clamp(min=_LEAST)
        return [
            Panel("votes", voted.sigmoid().unflatten(1, size), "query"),
            Panel("after the walk", walked.sigmoid().unflatten(1, size), "query"),
            Panel("like what was found", heard.unflatten(1, e.support[MAP].shape[1:2] + size), "support"),
        ]


def attention(query: Tensor, keys: Tensor, values: Tensor, tau: float) -> Tensor:
    """softmax(query keys^T / tau) values: (B,n,C), (B,m,C), (B,m,D) -> (B,n,D)."""
    one_head = query[:, None], keys[:, None], values[:, None]  # ONNX knows no other kind
    return F.scaled_dot_product_attention(*one_head, scale=1 / tau)[:, 0]


def _cells(maps: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,h*w,C)."""
    return maps.flatten(2).transpose(1, 2)


def _support_cells(e: Encoded) -> Tensor:
    """Cells of all shots: (B,K*h*w,C)."""
    return e.support[MAP].flatten(3).transpose(2, 3).flatten(1, 2)


def _areas(e: Encoded) -> Tensor:
    """Background and foreground in them: (B,K*h*w,2)."""
    size = e.support[MAP].shape[-2:]
    return mask_areas(e.support_masks, (size[0], size[1]), e.corners).flatten(3).transpose(2, 3).flatten(1, 2)


def _on_photo(e: Encoded) -> Tensor:
    """Which query cells (B,n) lie on the photo, more than on the canvas around it."""
    query = e.query[MAP]
    if e.photo is None:
        return torch.ones(len(query), query[0, 0].numel(), dtype=torch.bool, device=query.device)
    size = (query.shape[-2], query.shape[-1])
    off, on = mask_areas(e.photo[:, None].long(), size, e.corners)[:, 0].flatten(2).unbind(1)
    return on > off
