"""What a network of the base classes tells a few-shot head: where their objects are, which are not wanted.

Lang, Cheng, Tu, Han, "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation", CVPR 2022,
https://arxiv.org/abs/2203.07615, sections 4.3 and 4.4. Parameter names are those of its published weights.
"""

import math

import torch
from torch import Tensor, nn

from fss.heads.base import Encoded
from fss.ops import resize

_EPS = 1e-7


@torch.no_grad()
def gram(features: Tensor) -> Tensor:
    """The cosine of every channel with every other: maps (B,C,h,w) -> (B,C,C), float32."""
    with torch.autocast(features.device.type, enabled=False):
        rows = features.flatten(2).float()  # (B,C,hw)
        length = rows.norm(dim=2)
        return (rows @ rows.mT) / (length[:, :, None] * length[:, None] + _EPS)


@torch.no_grad()
def adjustments(query: Tensor, support: Tensor) -> Tensor:
    """Psi, how differently a query and each support look: Gram matrices (B,C,C), (B,K,C,C) -> (B,K).

    It is the Frobenius norm of their difference, as a share of a matrix of ones. The matrices are subtracted:
    the expanded square would lose three digits.
    """
    return (query[:, None] - support).flatten(2).norm(dim=2) / query.shape[-1]


def base_probability(logits: Tensor, own: Tensor | None = None) -> Tensor:
    """The probability of all base classes together: logits (B,1+N,h,w), background first -> (B,1,h,w).

    Args:
        own: (B,) the base class that each episode is about, from 0, which is left out of the sum; -1, or None
            for all episodes, where it is none of them.
    """
    logits = logits.float()
    rest = logits[:, 1:]
    if own is not None:
        left_out = torch.arange(rest.shape[1], device=own.device) == own[:, None]  # (B,N)
        rest = rest.masked_fill(left_out[:, :, None, None], -math.inf)
    every, others = logits.logsumexp(1, keepdim=True), rest.logsumexp(1, keepdim=True)
    return (others - every).exp()


def base_map(episodes: Encoded, meta: Tensor) -> Tensor:
    """The probability of all base classes on the cells of the meta learner's logits (B,2,h,w): (B,1,h,w), of
    the queries' "base". In training the episode's own class is none of them."""
    own = None if episodes.query_mask is None else episodes.base_class
    size = (meta.shape[-2], meta.shape[-1])
    return base_probability(resize(episodes.query["base"].float(), size, episodes.corners), own)


class Ensemble(nn.Module):
    """Both learners' probabilities, merged by four numbers that are learned: equations 12 and 13.

    At the start they leave the meta learner's as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gram_merge, self.cls_merge = _merge(), _merge()

    def forward(self, meta: Tensor, psi: Tensor, base: Tensor) -> Tensor:
        """Logits of both, which are no probabilities any more.

        Args:
            meta: (B,2,h,w) the meta learner's logits, background first.
            psi: (B,) of the episodes.
            base: (B,1,h,w) as of `base_probability`, at the same size.

        Returns:
            (B,2,h,w), background first.
        """
        of_meta, of_psi = self.gram_merge.weight.flatten()
        background, foreground = (of_meta * meta.softmax(1) + of_psi * psi[:, None, None, None]).chunk(2, 1)
        of_background, of_base = self.cls_merge.weight.flatten()
        return torch.cat([of_background * background + of_base * base, foreground], 1)


def _merge() -> nn.Conv2d:
    """A 1x1 convolution of two maps that gives the first."""
    conv = nn.Conv2d(2, 1, 1, bias=False)
    conv.weight = nn.Parameter(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    return conv


class ShotWeights(nn.Module):
    """How much each of K supports counts, by their psi.

    Args:
        shots: K that the weights are learned for; of any other number, supports count alike.
        back: whether outputs, which belong to psi in ascending order, go back to the supports' order.
    """

    def __init__(self, shots: int, back: bool = True) -> None:
        super().__init__()
        self.shots, self.back = shots, back
        if shots > 1:
            self.kshot_rw = nn.Sequential(nn.Conv2d(shots, 2, 1), nn.ReLU(), nn.Conv2d(2, shots, 1))

    def forward(self, psi: Tensor) -> Tensor:
        """(B,K) -> the same, of sum 1."""
        if psi.shape[1] != self.shots or self.shots == 1:
            return torch.full_like(psi, 1 / psi.shape[1])
        ascending, order = psi.sort(dim=1)
        raw = self.kshot_rw(ascending[:, :, None, None])[:, :, 0, 0]  # (B,K)
        return (raw.gather(1, order.argsort(1)) if self.back else raw).softmax(1)

    def unlike(self, psi: Tensor) -> Tensor:
        """(B,) whether episodes have another number of supports than the weights are learned for."""
        return torch.full_like(psi[:, 0], psi.shape[1] != self.shots, dtype=torch.bool)
