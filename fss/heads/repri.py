"""Region proportion regularised inference.

Boudiaf, Kervadec, Imtiaz Masud, Piantanida, Ben Ayed, Dolz, "Few-Shot Segmentation Without Meta-Learning:
A Good Transductive Inference Is All You Need?", CVPR 2021, https://arxiv.org/abs/2012.06166

Nothing learns from episodes. On a network of the base classes, each episode fits a classifier of one vector
to the supports' labelled cells and to the query's unlabelled ones: those should be decided, and about as
many of them foreground as the first classifier predicts.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.episode import IGNORE
from fss.errors import UserError
from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import joined, nearest
from fss.ops import repeat

CELLS = "cells"  # the one map that is kept of an image
_LEAST = 1e-10  # keeps lengths from dividing by zero, and shares from the logarithm of zero


class RePRI(Head):
    """RePRI on the cells of a map, each of unit length.

    Args:
        level: the feature map, the neck's as published; or several, as of `fss.heads.cells.joined`.
        steps: updates by gradient descent. None: 49 as published (50 iterations, counted from 1), or 299
            with `oracle`.
        lr: of vector and threshold alike.
        scale: of the cosine.
        renew: the update after which the expected share of foreground is estimated again and its weight grows
            by 1; 0 for never.
        weights: of the loss's terms, the supports' cross-entropy, the share of foreground, and the query's
            entropy. None: as published, 1 for the first and 1 / K for the others, or 1, 1, 0.1 with `oracle`.
        valid: which of the query's cells count: all of the "photo", or, as published, those where the
            query's "label" is not 255. That tells where objects end, and is to be had in tests alone.
        oracle: the true share of foreground is expected, the paper's upper bound; in tests alone, too.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        level: str | list[str] = "neck",
        steps: int | None = None,
        lr: float = 0.025,
        scale: float = 20.0,
        renew: int = 9,
        weights: tuple[float, float, float] | None = None,
        valid: Literal["photo", "label"] = "photo",
        oracle: bool = False,
    ) -> None:
        if min(renew, steps or 0) < 0 or not 0 < lr < math.inf or not 0 < scale < math.inf:
            raise ValueError(
                f"steps={steps}, renew={renew}, lr={lr}, scale={scale}; allowed: steps >= 0, renew >= 0, "
                "lr > 0, scale > 0"
            )
        if weights is not None and not 0 <= min(weights) <= max(weights) < math.inf:
            raise ValueError(f"weights={weights}; allowed: three of 0 and more")
        if valid not in ("photo", "label"):
            raise ValueError(f"valid={valid!r}; allowed: photo, label")
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        super().__init__(channels)
        self.steps = steps if steps is not None else 299 if oracle else 49
        self.lr, self.scale, self.renew, self.weights = lr, scale, renew, weights
        self.valid, self.oracle = valid, oracle
        self.sees_query_mask = oracle or valid == "label"

    def encode(self, features: Features) -> Features:
        """Cells of unit length: {CELLS: (B,C,h,w)}, float32."""
        with torch.autocast(features[self.levels[0]].device.type, enabled=False):
            return {CELLS: F.normalize(joined(features, self.levels, self.corners), dim=1)}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Fit the classifier, and let it answer: (0, logit less threshold)."""
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            task, expected = self._task(episodes)
            lead = task.lead(self._fit(task, expected).end)[:, -1]  # (B,P)
            empty = ~task.truth.any(2).any(1)
            lead = lead.masked_fill(empty[:, None], -self.scale)
            lead = lead.view(-1, 1, *episodes.query[CELLS].shape[-2:])
        return HeadOutput(torch.cat([torch.zeros_like(lead), lead], 1), notes={"empty_support": empty})

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The query's probability of foreground before the updates and after them, and the share of
        foreground that was expected then."""
        size, panels = episodes.query[CELLS].shape[-2:], []
        task, expected = self._task(episodes)
        fitted = self._fit(task, expected)
        for when, state, share in (
            ("start", fitted.start, fitted.expected),
            (f"{self.steps} updates", fitted.end, fitted.renewed),
        ):
            captions = [f"{100 * x:.0f}% expected" for x in share[:, 0].tolist()]
            likely = task.lead(state)[:, -1].sigmoid().unflatten(1, size)  # (B,h,w)
            panels.append(Panel(when, likely, "query", captions=captions))
        return panels

    def _task(self, e: Encoded) -> tuple["Task", Tensor | None]:
        """What is fitted to, and the true share of foreground (B,1) for the oracle.

        Raises:
            UserError: it wants the query's label, and there is none.
        """
        cells = torch.cat([e.support[CELLS], e.query[CELLS][:, None]], 1)  # (B,K+1,C,h,w)
        size = (cells.shape[-2], cells.shape[-1])
        masks = nearest(e.support_masks, size).flatten(2)  # (B,K,P)
        shown = (masks != IGNORE) & (masks == 1).any(2, keepdim=True)  # none of a support without foreground
        counts = self._query_counts(e, size).flatten(1)[:, None]  # (B,1,P)
        task = Task(cells.flatten(3), masks == 1, torch.cat([_shares(shown), _shares(counts)], 1), self.scale)
        if not self.oracle:
            return task, None
        true = nearest(self._label(e), size).flatten(1) == 1
        return task, (true * task.share[:, -1]).sum(1, keepdim=True)

    def _query_counts(self, e: Encoded, size: tuple[int, int]) -> Tensor:
        """Which of the query's cells count (B,h,w)."""
        if self.valid == "label":
            return nearest(self._label(e), size) != IGNORE
        photo = torch.ones_like(e.support_masks[:, 0]) if e.photo is None else e.photo
        return nearest(photo, size) > 0

    def _label(self, e: Encoded) -> Tensor:
        if e.query_mask is None:
            option = "head.oracle=true" if self.oracle else "head.valid=label"
            raise UserError(f"{option} looks at the query's own label, which tests alone have; leave it out")
        return e.query_mask

    def _fit(self, task: "Task", expected: Tensor | None) -> "Fitted":
        shots = task.truth.shape[1]
        published = (1.0, 1.0, 0.1) if self.oracle else (1.0, 1 / shots, 1 / shots)
        renew = 0 if self.oracle else self.renew
        return fit(task, self.steps, self.lr, self.weights or published, renew, expected)


class Task(NamedTuple):
    """What B classifiers are fitted to. P = h w cells of each of K supports and, last, of the query.

    Attributes:
        cells: (B,K+1,C,P) of unit length.
        truth: (B,K,P) bool, the supports' foreground.
        share: (B,K+1,P) each cell's weight: 0 where it does not count, else 1 / N, of N cells of all
            supports together, or of the query.
        scale: of the cosine.
    """

    cells: Tensor
    truth: Tensor
    share: Tensor
    scale: float

    def start(self) -> Tensor:
        """The mean of all foreground cells of all supports (section 3.1), and the mean of the query's logits
        as threshold: states (B,C+1)."""
        count = self.truth.sum((1, 2))[:, None].clamp(min=1)  # (B,1)
        vector = (self.cells[:, :-1] @ self.truth[..., None].float())[..., 0].sum(1) / count  # (B,C)
        logits = self.lead(F.pad(vector, (0, 1)))[:, -1]  # (B,P)
        return torch.cat([vector, logits.mean(1, keepdim=True)], 1)

    def lead(self, state: Tensor) -> Tensor:
        """Scaled cosine less threshold: states (B,C+1) -> (B,K+1,P)."""
        vector, threshold = state[:, :-1], state[:, -1:]
        direction = vector / (vector.norm(dim=1, keepdim=True) + _LEAST)
        cosine = (direction[:, None, None] @ self.cells)[:, :, 0]
        return self.scale * cosine - threshold[:, None]

    def foreground(self, state: Tensor) -> Tensor:
        """The share of foreground in the query, by its probabilities (equation 5): (B,1)."""
        return (self.lead(state)[:, -1].sigmoid() * self.share[:, -1]).sum(1, keepdim=True)

    def gradient(self, state: Tensor, expected: Tensor, weights: tuple[float, float, float]) -> Tensor:
        """Of the loss (equation 1) at states (B,C+1), in closed form.

        Args:
            expected: (B,1) share of foreground.
            weights: of cross-entropy, KL divergence from what is expected, and entropy.
        """
        lead = self.lead(state)  # (B,K+1,P)
        likely = lead.sigmoid()
        foreground = (likely[:, -1] * self.share[:, -1]).sum(1, keepdim=True)  # (B,1)
        excess = _odds(foreground) - _odds(expected)
        slope = weights[1] * excess - weights[2] * lead[:, -1]  # (B,P) by the query's probabilities
        slope = likely[:, -1] * (1 - likely[:, -1]) * slope
        error = weights[0] * (likely[:, :-1] - self.truth.float())  # (B,K,P)
        by_lead = torch.cat([error, slope[:, None]], 1) * self.share
        return self._through_cosine(state[:, :-1], by_lead)

    def _through_cosine(self, vector: Tensor, by_lead: Tensor) -> Tensor:
        """The gradient by leads (B,K+1,P) carried on to states (B,C+1)."""
        length = vector.norm(dim=1, keepdim=True) + _LEAST
        direction = vector / length
        # Rows times transposed matrices are three times as fast as matrices times columns, for several
        # episodes on a CPU.
        pull = (by_lead[:, :, None] @ self.cells.mT)[:, :, 0].sum(1)  # (B,C)
        pull = pull - direction * (direction * pull).sum(1, keepdim=True)  # the length changes no cosine
        return torch.cat([self.scale * pull / length, -by_lead.sum((1, 2))[:, None]], 1)


class Fitted(NamedTuple):
    """States (B,C+1) before the updates and after them, and the shares of foreground (B,1) expected then."""

    start: Tensor
    expected: Tensor
    end: Tensor
    renewed: Tensor


@torch.no_grad()
def fit(
    task: Task, steps: int, lr: float, weights: tuple[float, float, float], renew: int,
    expected: Tensor | None,
) -> Fitted:  # fmt: skip
    """Plain gradient descent on all episodes at once, each with a classifier and a loss of its own.

    Args:
        renew: after this update the expected share is estimated again, its weight grows by 1; 0: never.
        expected: (B,1) share of foreground; None for the prediction at the start.
    """
    start = task.start()
    first = task.foreground(start) if expected is None else expected

    def updated(state: Tensor, times: int, share: Tensor, by: tuple[float, float, float]) -> Tensor:
        return repeat(lambda x: x - lr * task.gradient(x, share, by), state, times)

    if not 0 < renew < steps:
        return Fitted(start, first, updated(start, steps, first, weights), first)
    state = updated(start, renew, first, weights)
    renewed = task.foreground(state)
    heavier = (weights[0], weights[1] + 1, weights[2])
    return Fitted(start, first, updated(state, steps - renew, renewed, heavier), renewed)


def _odds(share: Tensor) -> Tensor:
    """Log-odds of shares, finite."""
    return share.clamp(min=_LEAST).log() - (1 - share).clamp(min=_LEAST).log()


def _shares(counts: Tensor) -> Tensor:
    """(B,N,P) bool -> 1 / number of cells that count, 0 for the others."""
    return counts / counts.sum((1, 2), keepdim=True).clamp(min=1)
