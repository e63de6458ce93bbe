"""AlignSeg as a neck: all stages and a global context gathered from fine to coarse, each aligned.

Huang, Wei, Wang, Liu, Huang, Shi, "AlignSeg: Feature-Aligned Segmentation Networks", TPAMI 2021,
https://arxiv.org/abs/2003.00872
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from fss.necks.align import AlignedAggregation, AlignedContext, activated, conv
from fss.necks.base import Decoded, Neck

_SIDE = "auxiliary_stage3"


class Refinement(nn.Module):
    """Residual refinement: 1x1 convolution, then a bottleneck of two 3x3 that is added to it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        narrow = max(width // 4, 1)
        self.reduce = conv(inputs, width, 1)
        self.residual = nn.Sequential(conv(width, narrow, 3), *activated(narrow), conv(narrow, width, 3))
        self.norm = nn.Sequential(*activated(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,width,h,w)."""
        x = self.reduce(x)
        return self.norm(x + self.residual(x))


class AlignSeg(Neck):
    """AlignSeg's decoder, at stage 1's resolution.

    Args:
        inputs: channels of the stages.
        channels: of every map in it, 256 as published.
        dropout: share of channels dropped before the classifiers in training.
        align: without, all offsets are zero; everything else is the same.
        stride: of the map that heads get, 8 or 4 pixels; the neck's own is stage 1's, 4.
        auxiliary: classify what was gathered up to stage 3 as well in base training.
    """

    levels = ("stage1", "stage2", "stage3", "stage4")
    classifier_bias = True

    def __init__(
        self,
        inputs: Mapping[str, int],
        channels: int = 256,
        dropout: float = 0.1,
        align: bool = True,
        stride: Literal[4, 8] = 8,
        auxiliary: bool = True,
    ) -> None:
        super().__init__(inputs, channels)
        self.dropout, self.auxiliary, self.stride = dropout, auxiliary, stride
        self.refine = nn.ModuleDict({level: Refinement(inputs[level], channels) for level in self.levels})
        self.context = AlignedContext(inputs["stage4"], channels, align)
        self.refine["context"] = Refinement(channels, channels)
        coarser = (*self.levels[1:], "context")
        self.gather = nn.ModuleDict({level: AlignedAggregation(channels, align) for level in coarser})
        self.after = nn.ModuleDict({level: Refinement(channels, channels) for level in coarser})
        self.head = self._head()

    def _head(self) -> nn.Sequential:
        third = conv(self.channels, self.channels, 3, bias=True)
        return nn.Sequential(third, *activated(self.channels), nn.Dropout2d(self.dropout))

    def decode(self, features: dict[str, Tensor]) -> Decoded:
        """Everything of {"stage1".."stage4": (B,C,h,w)}, at stage 1's (h,w)."""
        context, moved = self.context(features["stage4"])
        offsets = dict(zip(("pooled context",), moved, strict=False))
        gathered = self.refine["stage1"](features["stage1"])
        side = gathered
        for level in self.gather:
            coarse = self.refine[level](context if level == "context" else features[level])
            merged, moved = self.gather[level](gathered, coarse)
            gathered = self.after[level](merged)
            side = gathered if level == "stage3" else side
            offsets |= dict(zip((level, f"finer than {level}"), moved, strict=False))
        return Decoded(self.head(gathered), {_SIDE: side} if self.auxiliary else {}, offsets)

    def side_classifiers(self, classes: int) -> dict[str, nn.Module]:
        """One, of the main classifier's form, on what was gathered up to stage 3."""
        if not self.auxiliary:
            return {}
        return {_SIDE: nn.Sequential(*self._head(), conv(self.channels, classes, 1, bias=True))}
