"""Prototypes by masked average pooling, compared by cosine similarity: the baseline of every table.

Wang, Liew, Zou, Zhou, Feng, "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment",
ICCV 2019, https://arxiv.org/abs/1908.06391; on a frozen network, and so without anything to learn.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import joined, mask_areas
from fss.ops import segmentation_loss, without_foreground

MAP = "map"  # the one map that is kept of an image


class Prototype(Head):
    """One prototype for the foreground, one for the background (section 3.3).

    Args:
        level: the feature map to compare on, or several, as of `fss.heads.cells.joined`.
        scale: of the cosine similarity before the softmax; only losses feel it.
        embed: channels of a learned 1x1 convolution before all else; 0 for none, and nothing learns.
        align: PANet's prototype alignment (section 3.4): the query as predicted must segment the
            supports. Teaches the embedding, so it needs one.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        level: str | list[str] = "neck",
        scale: float = 20.0,
        embed: int = 0,
        align: bool = False,
    ) -> None:
        if embed < 0 or not 0 < scale < float("inf"):
            raise ValueError(f"embed={embed}, scale={scale}; allowed: embed >= 0, scale > 0")
        if align and not embed:
            raise ValueError("align=true has nothing to teach without an embedding; set embed=256")
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        super().__init__(channels)
        self.scale, self.align = scale, align
        width = sum(channels[name] for name in self.levels)
        self.embedding = nn.Conv2d(width, embed, 1, bias=False) if embed else nn.Identity()

    def encode(self, features: Features) -> Features:
        """The embedding, not normalised: {MAP: (B,C,h,w)}."""
        with torch.autocast(features[self.levels[0]].device.type, enabled=False):
            return {MAP: self.embedding(joined(features, self.levels, self.corners))}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Average the supports under their masks; compare every query cell with the two averages."""
        e, masks = episodes, episodes.support_masks
        with torch.autocast(masks.device.type, enabled=False):
            x, supports = e.query[MAP], e.support[MAP]  # (B,C,h,w), (B,K,C,h,w)
            logits = self.scale * similarity(x, prototypes(supports, masks, e.corners))
            losses = {}
            if self.align and e.query_mask is not None:
                losses["alignment"] = self._alignment(x, logits, supports, masks, e.corners)
        return HeadOutput(logits, losses, {"empty_support": without_foreground(masks)})

    def _alignment(
        self, query: Tensor, logits: Tensor, supports: Tensor, masks: Tensor, corners: bool
    ) -> Tensor:
        """Equation 5: the query with its predicted mask is the support of each support image."""
        predicted = logits.argmax(1)[:, None]  # (B,1,h,w)
        back = prototypes(query[:, None], predicted)  # (B,2,C)
        shots = supports.shape[1]
        answer = self.scale * similarity(supports.flatten(0, 1), back.repeat_interleave(shots, 0))
        return segmentation_loss(answer, masks.flatten(0, 1), False, corners)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """How alike each query cell is to the foreground's prototype and to the background's."""
        e = episodes
        like = similarity(e.query[MAP], prototypes(e.support[MAP], e.support_masks, e.corners))
        like = like.clamp(min=0)
        return [
            Panel("like the foreground", like[:, 1], "query"),
            Panel("like the background", like[:, 0], "query"),
        ]


def prototypes(features: Tensor, masks: Tensor, corners: bool = True) -> Tensor:
    """Masked average pooling (equations 1 and 2): features (B,K,C,h,w), masks (B,K,H,W) -> (B,2,C).

    Background first; each is the mean over shots of the shots' means. Averaging features resized to
    the masks is the same as averaging the features under masks that went through the resize's transpose.
    A class that no shot shows gets zeros.
    """
    small = mask_areas(masks, (features.shape[-2], features.shape[-1]), corners)  # (B,K,2,h,w)
    area = small.sum((3, 4))  # (B,K,2)
    mean = torch.einsum("bkchw,bknhw->bknc", features, small) / area.clamp(min=1e-6)[..., None]
    seen = (area > 0).to(features.dtype)[..., None]
    return (mean * seen).sum(1) / seen.sum(1).clamp(min=1)


def similarity(features: Tensor, against: Tensor) -> Tensor:
    """Cosine similarity of features (B,C,h,w) and prototypes (B,N,C): (B,N,h,w)."""
    x, y = F.normalize(features, dim=1), F.normalize(against, dim=2)
    return torch.einsum("bchw,bnc->bnhw", x, y)
