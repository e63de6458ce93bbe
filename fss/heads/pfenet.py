"""Prior guided feature enrichment network.

Tian, Zhao, Shu, Yang, Li, Jia, "Prior Guided Feature Enrichment Network for Few-Shot Segmentation",
TPAMI 2020, https://arxiv.org/abs/2008.01449

Deep features tell, without learning, where the query looks like the supports' objects; middle features
meet the supports' average and this prior at several scales.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fss.heads.base import Cut, Encoded, Features, Head, HeadOutput, Panel, check_cut
from fss.heads.cells import as_computed, reduced, reduction, support_vectors
from fss.heads.context import Pyramid, auxiliary_loss
from fss.heads.prior import support_priors
from fss.ops import without_foreground


class PFENet(Head):
    """PFENet on stages 2 and 3, with a prior from stage 4.

    Without foreground in any support their average and the prior are 0, and the answer is what the layers
    make of that ("empty_support").

    Args:
        level: the maps that are reduced to `width` channels, side by side, at the size of the finest.
        deep: the map of the prior.
        cut: what a support's mask cuts before the network goes on, as of `Head.support_cut`: "stage4", as
            published, if the backbone can go on from stage 3. The prior is of the cells under the mask
            either way.
        width: channels after the reduction.
        sizes: scales of the pyramid, finest first, in cells; numbers up to 1 are shares of the maps' sides.
        dropout: share of channels dropped after the reduction.
    """

    levels: tuple[str, ...] = ("stage3", "stage2", "stage4")
    support_cut: Cut = "stage4"

    def __init__(
        self, channels: Mapping[str, int], level: str | tuple[str, ...] = ("stage3", "stage2"),
        deep: str = "stage4", cut: Cut = "stage4", width: int = 256,
        sizes: tuple[float, ...] = (60, 30, 15, 8), dropout: float = 0.5,
    ) -> None:  # fmt: skip
        _check(width, sizes, dropout)
        self.reduced = (level,) if isinstance(level, str) else tuple(level)
        self.deep, self.support_cut = deep, cut
        self.levels = tuple(dict.fromkeys((*self.reduced, deep)))
        check_cut(cut, self.levels)
        super().__init__(channels)
        inputs = sum(channels[name] for name in self.reduced)
        self.down_query, self.down_supp = (reduction(inputs, width, dropout) for _ in range(2))
        self.context = Pyramid(width, [float(size) for size in sizes])

    def encode(self, features: Features) -> Features:
        """The reduction, and the prior's map as it is: {"reduced": (B,C,h,w), "deep": (B,C',h',w')}."""
        return self._encoded(features, self.down_query)

    def encode_support(self, features: Features) -> Features:
        """The same, with the supports' own reduction."""
        return self._encoded(features, self.down_supp)

    def _encoded(self, features: Features, layers: nn.Sequential) -> Features:
        maps = [features[name] for name in self.reduced]
        return {"reduced": reduced(layers, maps, self.corners), "deep": features[self.deep]}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Figure 3: the supports' average and their prior beside the query, through the pyramid."""
        query, target = episodes.query["reduced"], episodes.query_mask
        with torch.autocast(query.device.type, enabled=False):
            vector = support_vector(episodes)[..., None, None]  # (B,C,1,1)
            prior = support_priors(episodes, "deep").mean(1, keepdim=True)  # (B,1,h',w')
        with as_computed(query):
            parts = query, vector.to(query.dtype), prior.to(query.dtype)
            logits, scales = self.context(*parts, target is not None, {}, episodes.corners)
        losses = {} if target is None else {"auxiliary": auxiliary_loss(scales, target, episodes.corners)}
        return HeadOutput(
            logits.float(), losses, {"empty_support": without_foreground(episodes.support_masks)}
        )

    def explain(self, episodes: Encoded) -> list[Panel]:
        """The prior; of several supports, that of each, too."""
        every = support_priors(episodes, "deep")  # (B,K,h',w')
        each = [Panel(f"prior of support {k}", x, "query") for k, x in enumerate(every.unbind(1), 1)]
        return [Panel("prior", every.mean(1), "query"), *(each if len(each) > 1 else [])]


def support_vector(episodes: Encoded) -> Tensor:
    """The mean over shots of the supports' masked averages (B,C)."""
    return support_vectors(episodes.support["reduced"], episodes.support_masks, episodes.corners).mean(1)


def _check(width: int, sizes: tuple[float, ...], dropout: float) -> None:
    if width < 1 or not 0 <= dropout < 1:
        raise ValueError(f"width={width}, dropout={dropout}; allowed: 1 or more, and 0 to below 1")
    if not sizes or not all(0 < size <= 1 or (1 < size <= 1000 and size % 1 == 0) for size in sizes):
        raise ValueError(
            f"sizes={sizes}; allowed: one or more, whole numbers of cells up to 1000, or shares of the maps' "
            "sides, above 0 to 1"
        )
