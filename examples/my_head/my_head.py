"""A head of one's own: a small decoder looks at how alike each query pixel is to the support's object."""

import torch
import torch.nn.functional as F
from torch import nn

from fss.heads import Head, HeadOutput
from fss.ops import resize


class MyHead(Head):
    """Masked average pooling, then a learned decision.

    Args:
        width: channels of the decoder.
    """

    levels = ("stage3",)  # feature maps wanted

    def __init__(self, channels: dict[str, int], width: int = 64) -> None:
        super().__init__(channels)
        self.reduce = nn.Conv2d(channels["stage3"], width, 1)
        self.decide = nn.Sequential(
            nn.Conv2d(2 * width + 1, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2, 3, padding=1),
        )  # fmt: skip

    def encode(self, features):
        """The part that needs no partner; evaluation computes it once per image."""
        return {"mine": self.reduce(features["stage3"].float())}

    def forward(self, episodes):
        """Queries (B,C,h,w), supports (B,K,C,h,w), masks (B,K,H,W) -> logits (B,2,h,w)."""
        q, s = episodes.query["mine"], episodes.support["mine"]
        masks = (episodes.support_masks == 1).float()
        inside = resize(masks, s.shape[-2:], episodes.corners)[:, :, None]  # (B,K,1,h,w)
        prototype = (s * inside).sum((1, 3, 4)) / (inside.sum((1, 3, 4)) + 1e-4)  # (B,C)
        likeness = F.cosine_similarity(q, prototype[:, :, None, None], dim=1)[:, None]  # (B,1,h,w)
        both = torch.cat([q, prototype[:, :, None, None].expand_as(q), likeness], 1)
        return HeadOutput(self.decide(both))
