"""Adaptive superpixel-guided network.

Li, Jampani, Sevilla-Lara, Sun, Kim, Kim, "Adaptive Prototype Learning and Allocation for Few-Shot
Segmentation", CVPR 2021, https://arxiv.org/abs/2104.01893

The support object is split into superpixels, one prototype each, as many as its size asks for; every
query pixel is compared with the prototype that fits it best.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import as_computed, conv_of_parts, masked_average
from fss.heads.context import ASPP, Pyramid, auxiliary_loss
from fss.heads.seeds import Seeds, seeds_of
from fss.ops import resize, without_foreground

CELL = 8  # pixels of a published cell, which `cells` is counted in
_NEARNESS = 10.0  # cells that count as much as a feature distance of 1; |xy|^2 / 100 in the paper's words


class ASGNet(Head):
    """ASGNet on stages 2 and 3, or on the neck's map.

    Args:
        context: "pyramid" or "aspp", the module that turns query, guide and similarity into logits.
        prototypes: at most, of one support.
        cells: foreground cells (of 8 x 8 pixels) to a prototype.
        width: channels after the 1x1 reduction.
        sizes: scales of the pyramid, in cells.
        similarity: how the query's similarities to all prototypes become one map: their "sum", as
            published, which grows with the shots, or their "mean", which does not.
        iterations: of the clustering, in training and in testing.
        dropout: share of channels dropped after the reduction.
        features: what the supports are clustered and the query compared on: "stages" 2 and 3, as
            published, or the "neck"'s map (`network=base`); of stride 8 either way.
    """

    levels = ("stage3", "stage2")
    learns_from_support = False

    def __init__(
        self,
        channels: Mapping[str, int],
        context: Literal["pyramid", "aspp"] = "pyramid",
        prototypes: int = 5,
        cells: float = 100,
        width: int = 256,
        sizes: tuple[int, ...] = (60, 30, 15, 8),
        similarity: Literal["sum", "mean"] = "sum",
        iterations: tuple[int, int] = (10, 5),
        dropout: float = 0.5,
        features: Literal["stages", "neck"] = "stages",
    ) -> None:
        if prototypes < 1 or not cells >= 1 or width < 1 or not sizes or min(*sizes, *iterations) < 1:
            raise ValueError(
                f"prototypes={prototypes}, cells={cells}, width={width}, sizes={sizes}, "
                f"iterations={iterations}: all must be 1 or more"
            )
        if not 0 <= dropout < 1 or max(sizes) > 1000:
            raise ValueError(f"dropout={dropout}, sizes={sizes}; allowed: 0 <= dropout < 1, sizes up to 1000")
        self.reduced = ASGNet.levels if features == "stages" else ("neck",)
        self.levels = (*self.reduced, *(ASPP if context == "aspp" else Pyramid).levels)
        super().__init__(channels)
        self.prototypes, self.cells, self.iterations = prototypes, cells, iterations
        self.similarity = similarity
        self.down_conv = nn.Sequential(
            nn.Conv2d(sum(channels[level] for level in self.reduced), width, 1, bias=False),
            nn.Dropout2d(dropout),
        )
        self.context = ASPP(width, channels["stage1"]) if context == "aspp" else Pyramid(width, sizes)
        self.query_only = self.context.levels

    def encode(self, features: Features) -> Features:
        """The 1x1 reduction: {"reduced": (B,C,h,w)}, and stage 1 where the context module wants it.

        In bfloat16 where the network is, as is the context module; clustering and allocation never are.
        """
        kept = {level: features[level] for level in self.context.levels}
        first = features[self.reduced[0]]
        size = (first.shape[-2], first.shape[-1])
        with as_computed(first):
            parts = [features[level] for level in self.reduced]
            x = conv_of_parts(self.down_conv.get_parameter("0.weight"), parts, size, self.corners)
            return {"reduced": self.down_conv[1](x), **kept}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Figure 2: cluster the supports (SGC), allocate prototypes to the query (GPA), add context."""
        query, target = episodes.query, episodes.query_mask
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            prototypes, valid = self._cluster(episodes)[:2]  # (B,N,C), (B,N)
            x = query["reduced"].float()  # (B,C,h,w)
            likeness, index = allocate(x, prototypes, valid)  # (B,N,h,w), (B,h,w)
            guided = guide(prototypes, index)  # (B,C,h,w)
            total = likeness.sum(1, keepdim=True)  # (B,1,h,w)
            if self.similarity == "mean":
                total = total / valid.sum(1)[:, None, None, None]
        with as_computed(query["reduced"]):
            parts = [part.to(query["reduced"].dtype) for part in (x, guided, total)]
            logits, scales = self.context(*parts, target is not None, query, episodes.corners)
        losses = {} if target is None else {"auxiliary": auxiliary_loss(scales, target, episodes.corners)}
        return HeadOutput(
            logits.float(), losses, {"empty_support": without_foreground(episodes.support_masks)}
        )

    def _cluster(self, episodes: Encoded) -> tuple[Tensor, Tensor, Tensor, Seeds]:
        """Prototypes of all shots together (B,K*N,C), which of them count, superpixels (B,K,h,w), seeds
        of BK masks."""
        x, masks = episodes.support["reduced"].float(), episodes.support_masks  # (B,K,C,h,w), (B,K,H,W)
        b, k, _, h, w = x.shape
        cells = self.cells * (CELL * h / masks.shape[-2]) ** 2 if self._coarser(h, masks) else self.cells
        seeds = seeds_of((masks == 1).flatten(0, 1), (h, w), self.prototypes, cells)
        soft = resize((masks == 1).to(x.dtype), (h, w), episodes.corners)  # (B,K,h,w)
        found, valid, index = cluster(
            x.flatten(0, 1), soft.flatten(0, 1), seeds.places, seeds.counts,
            self.iterations[0 if self.training else 1],
        )  # fmt: skip
        return found.unflatten(0, (b, k)).flatten(1, 2), valid.view(b, -1), index.view(b, k, h, w), seeds

    @staticmethod
    def _coarser(h: int, masks: Tensor) -> bool:
        """Whether maps have another stride than the published 8, for which `cells` is counted."""
        return h != (masks.shape[-2] - 1) // CELL + 1

    def explain(self, episodes: Encoded) -> list[Panel]:
        """Each support's superpixels with the seeds they grew from; the prototype of each query pixel."""
        prototypes, valid, index, found = self._cluster(episodes)
        _, best = allocate(episodes.query["reduced"].float(), prototypes, valid)
        shots = index.shape[1]
        first = torch.arange(shots, device=index.device)[:, None, None] * self.prototypes
        seeds = found.places.float().unflatten(0, index.shape[:2])  # (B,K,N,2)
        counts = found.counts.view(index.shape[:2])
        unused = torch.arange(self.prototypes, device=seeds.device) >= counts[..., None]
        return [
            Panel("superpixels and seeds", torch.where(index < 0, index, index + first), "support",
                  seeds.masked_fill(unused[..., None], torch.nan)),
            Panel("guide map", best, "query"),
        ]  # fmt: skip


@torch.no_grad()
def cluster(
    features: Tensor, masks: Tensor, seeds: Tensor, counts: Tensor, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Superpixel-guided clustering (section 3.2) of M supports at once; no gradient reaches prototypes.

    Cells and channels meet in matrix products alone. Features are taken relative to their mean, so
    that |a|^2 - 2ab + |b|^2 does not cancel in float32, and coordinates are two more channels.

    Args:
        features: (M,C,h,w).
        masks: (M,h,w) in 0..1; cells that are exactly 1 are clustered.
        seeds, counts: (M,N,2) and (M,), from `place_seeds`.

    Returns:
        prototypes (M,N,C); which of them count (M,N) bool; the nearest prototype of every clustered
        cell (M,h,w), -1 outside. A support with fewer than two seeds, or without a whole cell, has one
        prototype, its masked average.
    """
    m, c, h, w = features.shape
    n = seeds.shape[1]
    average = masked_average(features, masks)  # (M,C)
    inside = (masks == 1).flatten(1)[:, None]  # (M,1,hw)
    clustered = (counts >= 2) & inside.flatten(1).any(1)  # (M,)
    valid = torch.arange(n, device=counts.device) < torch.where(clustered, counts, 1)[:, None]

    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    place = torch.stack([y, x]).to(features).flatten(1) / _NEARNESS  # (2,hw)
    cells = torch.cat([features.flatten(2) - average[:, :, None], place.expand(m, -1, -1)], 1)  # (M,C+2,hw)
    start = (seeds[..., 0] * w + seeds[..., 1])[:, None].expand(-1, c + 2, -1)  # (M,C+2,N)
    centres = cells.gather(2, start).mT  # (M,N,C+2)
    outside = ~inside | ~clustered[:, None, None]  # (M,1,hw)
    for _ in range(iterations):
        distance = _distances(centres, cells)  # (M,N,hw)
        share = (-distance).masked_fill(outside, -torch.inf).softmax(2).nan_to_num()
        centres = share @ cells.mT
    index = _distances(centres, cells).masked_fill(~valid[..., None], torch.inf).argmin(1)  # (M,hw)
    prototypes = centres[..., :c] + average[:, None]
    prototypes = torch.where(clustered[:, None, None], prototypes, average[:, None])
    index = torch.where(clustered[:, None], index, 0).masked_fill(~inside[:, 0], -1)
    return prototypes, valid, index.view(m, h, w)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (M,N,P) of rows of a (M,N,D) to columns of b (M,D,P)."""
    squared = (a * a).sum(2)[:, :, None] - 2 * a @ b + (b * b).sum(1)[:, None]
    return squared.clamp_(min=0).sqrt_()


def allocate(query: Tensor, prototypes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Guided prototype allocation (section 3.3).

    Args:
        query: (B,C,h,w).
        prototypes: (B,N,C); valid: (B,N) bool, at least one an episode.

    Returns:
        cosine similarities (B,N,h,w), 0 for prototypes that do not count, and the index of the most
        similar one that does (B,h,w).
    """
    size = query.shape[-2:]
    cells = F.normalize(query.flatten(2), dim=1, eps=1e-7)  # (B,C,hw)
    likeness = F.normalize(prototypes, dim=2, eps=1e-7) @ cells  # (B,N,hw)
    index = likeness.masked_fill(~valid[..., None], -torch.inf).argmax(1)
    return (likeness * valid[..., None]).unflatten(2, size), index.unflatten(1, size)


def guide(prototypes: Tensor, index: Tensor) -> Tensor:
    """The allocated prototype of every cell: prototypes (B,N,C), index (B,h,w) -> (B,C,h,w)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, prototypes.shape[2])  # (B,hw,C)
    return prototypes.gather(1, flat).mT.unflatten(2, index.shape[1:])
