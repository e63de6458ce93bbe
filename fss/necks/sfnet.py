"""SFNet's decoders as necks: a feature pyramid from coarse to fine, each step aligned by a flow field.

Li, You, Zhu, Zhao, Yang, Yang, Tan, Tong, "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020,
https://arxiv.org/abs/2002.10120
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.necks.align import FlowAlignment, conv, exact, in_cells, rectified, resample, size_of
from fss.necks.base import Decoded, Neck
from fss.ops import resize


def _unit(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, bias), *rectified(outputs))


class Summit(nn.Module):
    """Pyramid pooling at the top: pools of four sizes beside stage 4, merged by a 1x1 convolution.

    As convolving and resizing are both linear, pools pass the 1x1 convolution at their own size.
    """

    def __init__(self, inputs: int, width: int, dropout: float, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.parts = [*[width] * len(bins), inputs]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(b), conv(inputs, width, 1), nn.BatchNorm2d(width))
            for b in bins
        )
        self.merge = nn.Sequential(conv(sum(self.parts), width, 1), *rectified(width), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,h,w) -> (B,width,h,w)."""
        first, *rest = self.merge.children()
        assert isinstance(first, nn.Conv2d)
        *weights, own = first.weight.split(self.parts, 1)
        out = F.conv2d(x, own, first.bias)
        for pool, weight in zip(self.pools, weights, strict=True):
            out = out + resize(F.conv2d(pool(x), weight), size_of(x))
        for layer in rest:
            out = layer(out)
        return out


class SFNet(Neck):
    """SFNet's decoder, at stage 1's resolution.

    Args:
        inputs: channels of the stages.
        channels: of every map in it, 256 as published.
        dropout: share of channels dropped at the top in training.
        align: without, the coarser map is resized: the plain feature pyramid, named `fpn`.
        stride: of the map that heads get, 8 or 4 pixels; the neck's own is stage 1's, 4.
        auxiliary: classify the outputs of stages 1 to 3 as well in base training.
    """

    levels = ("stage1", "stage2", "stage3", "stage4")
    steps = ("stage3", "stage2", "stage1")

    def __init__(
        self,
        inputs: Mapping[str, int],
        channels: int = 256,
        dropout: float = 0.1,
        align: bool = True,
        stride: Literal[4, 8] = 8,
        auxiliary: bool = False,
    ) -> None:
        super().__init__(inputs, channels)
        self.dropout, self.auxiliary, self.stride = dropout, auxiliary, stride
        self.summit = Summit(inputs["stage4"], channels, dropout)
        self.lateral = nn.ModuleDict({s: _unit(inputs[s], channels, 1, bias=True) for s in self.steps})
        self.flow = nn.ModuleDict({s: FlowAlignment(channels) for s in self.steps} if align else {})
        self.output = nn.ModuleDict({s: _unit(channels, channels, 3) for s in self.steps})
        self.merge = _unit(4 * channels, channels, 3)

    def decode(self, features: dict[str, Tensor]) -> Decoded:
        """Everything of {"stage1".."stage4": (B,C,h,w)}, at stage 1's (h,w)."""
        carry = summit = self.summit(features["stage4"])
        offsets, outputs = {}, {}
        for stage in self.steps:
            lateral = self.lateral[stage](features[stage])
            if stage in self.flow:
                moved, offsets[f"onto {stage}"] = self.flow[stage](lateral, carry)
            else:
                moved = resize(carry, size_of(lateral))
            carry = lateral + moved
            outputs[stage] = self.output[stage](carry)
        every = [outputs["stage1"], outputs["stage2"], outputs["stage3"], summit]
        merged = self.merge(torch.cat([resize(x, size_of(every[0])) for x in every], 1))
        sides = {f"auxiliary_{stage}": x for stage, x in outputs.items()} if self.auxiliary else {}
        return Decoded(merged, sides, offsets)

    def side_classifiers(self, classes: int) -> dict[str, nn.Module]:
        """One on the output of each of stages 1 to 3, if asked for."""
        c = self.channels
        return {
            f"auxiliary_{stage}": nn.Sequential(
                *_unit(c, c, 3), nn.Dropout2d(self.dropout), conv(c, classes, 1, bias=True)
            )
            for stage in (self.steps if self.auxiliary else ())
        }


class FPN(SFNet):
    """The feature pyramid that SFNet aligns, with nothing aligned; arguments as of `SFNet`."""

    def __init__(
        self,
        inputs: Mapping[str, int],
        channels: int = 256,
        dropout: float = 0.1,
        stride: Literal[4, 8] = 8,
        auxiliary: bool = False,
    ) -> None:
        super().__init__(inputs, channels, dropout, False, stride, auxiliary)


class GatedSFNet(Neck):
    """The gated two-level version: the top and stage 1 move towards each other, and a gate mixes them.

    Args:
        inputs, channels, dropout, stride: as of `SFNet`.
        align: without, neither moves; the gate stays.
        gate: a 3x3 convolution of both projections ("conv"), or, lighter, of their means and maxima over
            channels ("pooled").
    """

    levels = ("stage1", "stage3", "stage4")

    def __init__(
        self,
        inputs: Mapping[str, int],
        channels: int = 256,
        dropout: float = 0.1,
        align: bool = True,
        stride: Literal[4, 8] = 8,
        gate: Literal["conv", "pooled"] = "conv",
    ) -> None:
        super().__init__(inputs, channels)
        self.stride, half = stride, channels // 2
        self.summit = Summit(inputs["stage4"], channels, dropout)
        self.lateral = nn.ModuleDict(
            {s: _unit(inputs[s], channels, 1, bias=True) for s in ("stage1", "stage3")}
        )
        self.fine, self.coarse = conv(channels, half, 1), conv(channels, half, 1)
        self.flow = conv(2 * half, 4, 3) if align else None
        self.gate = conv(4 if gate == "pooled" else 2 * half, 1, 3)
        self.pooled = gate == "pooled"
        self.merge = _unit(2 * channels, channels, 3)

    def decode(self, features: dict[str, Tensor]) -> Decoded:
        """Everything of {"stage1", "stage3", "stage4": (B,C,h,w)}, at stage 1's (h,w)."""
        coarse, fine = self.summit(features["stage4"]), self.lateral["stage1"](features["stage1"])
        size, offsets = size_of(fine), {}
        pair = [resize(self.coarse(coarse), size), self.fine(fine)]
        if self.flow is None:
            coarse = resize(coarse, size)
        else:
            flows = exact(self.flow, torch.cat(pair, 1)).split(2, 1)  # (B,2,h,w) for coarse and fine
            offsets = dict(zip(("the top", "stage1"), map(in_cells, flows), strict=True))
            coarse, fine = (resample(x, o) for x, o in zip((coarse, fine), offsets.values(), strict=True))
        gate = self._gate(pair)
        mixed = gate * coarse + (1 - gate) * fine
        third = resize(self.lateral["stage3"](features["stage3"]), size)
        return Decoded(self.merge(torch.cat([mixed, third], 1)), {}, offsets)

    def _gate(self, pair: list[Tensor]) -> Tensor:
        """The coarse map's share (B,1,h,w)."""
        if self.pooled:
            pair = [f(x) for x in pair for f in (lambda t: t.mean(1, True), lambda t: t.amax(1, True))]
        return self.gate(torch.cat(pair, 1)).sigmoid()
