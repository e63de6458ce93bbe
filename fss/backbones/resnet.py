"""ResNet-18/34/50/101 for segmentation, dilated or not (He et al., CVPR 2016; Yu et al., CVPR 2017)."""

import copy
from collections.abc import Collection
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from fss.backbones.base import STAGES, Backbone
from fss.backbones.weights import find_weights, has_deep_stem, load_strict, read_weights
from fss.errors import UserError

Stem = Literal["auto", "deep", "plain"]
Stride = Literal[8, 32]
# Strides and dilations of the four stages, by the stride of the last in pixels (the stem's is 4).
_PLANS = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 32: ((1, 2, 2, 2), (1, 1, 1, 1))}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# A residual branch that starts small lets a network learn from scratch in minutes. Loaded weights replace it.
LAST_NORM = 0.2


def _conv3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18/34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(inputs, planes, stride, dilation), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv3(planes, planes, 1, dilation), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes, stride)
        nn.init.constant_(self.bn2.weight, LAST_NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,planes,h/stride,w/stride)."""
        return self.relu(self.sum(x))

    def sum(self, x: Tensor) -> Tensor:
        """The block's output before its last ReLU."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)  # in place: no gradient needs the sum's parts
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions (ResNet-50/101)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv3(planes, planes, stride, dilation), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)
        nn.init.constant_(self.bn3.weight, LAST_NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,4*planes,h/stride,w/stride)."""
        return self.relu(self.sum(x))

    def sum(self, x: Tensor) -> Tensor:
        """The block's output before its last ReLU."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return y


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stem(deep: bool, width: int) -> tuple[nn.Sequential, int]:
    """The layers before the stages, and their channels. Indices are those of published weights."""
    pool = nn.MaxPool2d(3, 2, 1)
    relu = nn.ReLU(inplace=True)
    if not deep:
        conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(width), relu, pool), width
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, width, 2), (width, width, 1), (width, 2 * width, 1)):
        layers += [_conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs), relu]
    return nn.Sequential(*layers, pool), 2 * width


class ResNet(Backbone):
    """ResNet with stages of stride 4, 8, 8, 8: 3 and 4 keep the resolution and dilate by 2 and 4.

    Levels are the stages, the blocks ("stage3.0" is the first of stage 3), and the blocks' sums before their
    last ReLU ("stage3.0:sum").

    Args:
        layers: 18, 34, 50 or 101.
        stem: "deep": three 3x3 convolutions (published few-shot weights); "plain": one 7x7 (torchvision);
            "auto": whichever the weights have, deep without any.
        stride: of stage 4, in pixels; with 32 in place of 8 nothing is dilated: 4, 8, 16, 32. Parameters
            are the same.

    Attributes:
        widths: of the blocks' 3x3 convolutions, stage by stage.
    """

    widths = (64, 128, 256, 512)

    def __init__(self, layers: int = 50, stem: Stem = "auto", stride: Stride = 8) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"ResNet-{layers} is not offered; allowed: {', '.join(map(str, BLOCKS))}")
        if isinstance(stem, bool):  # the second argument was `deep_stem` once
            stem = "deep" if stem else "plain"
        if stem not in get_args(Stem):
            raise ValueError(f"stem {stem!r} is not offered; allowed: {', '.join(get_args(Stem))}")
        if stride not in _PLANS:
            raise ValueError(f"stride {stride} is not offered; allowed: {', '.join(map(str, _PLANS))}")
        self.layers, self.deep_stem, self.stride = layers, stem != "plain", stride
        self.layer0, self._inputs = _stem(self.deep_stem, self.widths[0])
        block = Bottleneck if layers >= 50 else BasicBlock
        plan = zip(BLOCKS[layers], self.widths, *_PLANS[stride], strict=True)
        for i, (depth, planes, step, dilation) in enumerate(plan, 1):
            setattr(self, f"layer{i}", self._stage(block, depth, planes, step, dilation))
        self.channels, self.strides = self._levels(block.expansion)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], depth: int, planes: int, stride: int, dilation: int
    ) -> nn.Sequential:
        blocks = []
        for i in range(depth):
            blocks.append(block(self._inputs, planes, stride if i == 0 else 1, dilation))
            self._inputs = planes * block.expansion
        return nn.Sequential(*blocks)

    def _levels(self, expansion: int) -> tuple[dict[str, int], dict[str, int]]:
        """Channels and strides of every level, the stages first."""
        channels: dict[str, int] = {}
        strides: dict[str, int] = {}
        pixels = 4
        for stage, planes, step in zip(STAGES, self.widths, _PLANS[self.stride][0], strict=True):
            pixels *= step
            channels[stage], strides[stage] = planes * expansion, pixels
        for stage, depth in zip(STAGES, BLOCKS[self.layers], strict=True):
            for name in (f"{stage}.{i}{end}" for i in range(depth) for end in ("", ":sum")):
                channels[name], strides[name] = channels[stage], strides[stage]
        return channels, strides

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """RGB of 0..255 (B,3,H,W) -> {level: (B,C,h,w)}; nothing deeper is computed."""
        return self._from(self.layer0(self.pixels(images)), STAGES, levels)

    def resume(self, x: Tensor, after: str, levels: Collection[str]) -> dict[str, Tensor]:
        """Go on from the map (B,C,h,w) of stage `after`."""
        return self._from(x, STAGES[STAGES.index(after) + 1 :], levels)

    def _from(self, x: Tensor, stages: Collection[str], levels: Collection[str]) -> dict[str, Tensor]:
        deepest = max((level.partition(".")[0] for level in levels), default="")
        out: dict[str, Tensor] = {}
        for stage in stages:
            if stage > deepest:
                break
            wanted = [level for level in levels if level.startswith(f"{stage}.")]
            layer = getattr(self, f"layer{stage[-1]}")
            last = stage == deepest and stage not in levels
            x = self._blocks(x, stage, layer, wanted, last, out) if wanted else layer(x)
            if stage in levels:
                out[stage] = x
        return out

    def _blocks(
        self,
        x: Tensor,
        stage: str,
        layer: nn.Sequential,
        wanted: list[str],
        last: bool,
        out: dict[str, Tensor],
    ) -> Tensor:
        """A stage block by block; with `last`, no further than to the deepest block wanted.

        A sum that is wanted is kept: its ReLU works on another tensor then.
        """
        deepest = max(int(name.partition(".")[2].partition(":")[0]) for name in wanted)
        for i, block in enumerate(layer[: deepest + 1] if last else layer):
            name = f"{stage}.{i}"
            total = cast(BasicBlock | Bottleneck, block).sum(x)
            if f"{name}:sum" in wanted:
                out[f"{name}:sum"] = total
                total = total.clone()
            x = cast(nn.ReLU, block.relu)(total)
            if name in wanted:
                out[name] = x
        return x

    def parts(self) -> list[nn.Module]:
        """Stem and stages."""
        return [getattr(self, f"layer{i}") for i in range(5)]

    def up_to(self, levels: Collection[str]) -> "ResNet":
        """A view that shares all parameters and lacks the stages that these levels do not need."""
        view = copy.copy(self)
        view.__dict__["_modules"] = dict(self._modules)
        deepest = max((level.partition(".")[0] for level in levels), default="")
        for stage in STAGES:
            if stage > deepest:
                delattr(view, f"layer{stage[-1]}")
        return view

    def settled(self) -> dict[str, Any]:
        """The stem, which "auto" leaves to the weights."""
        return {"stem": "deep" if self.deep_stem else "plain"}

    @classmethod
    def with_weights(cls, weights: str, *family: str, **options: Any) -> "ResNet":
        """As of `Backbone`; a file's names may be the published ones, torchvision's, or a checkpoint's."""
        empty = cls(**options)
        stem = options.get("stem", "auto")
        found = find_weights(weights, empty.layers, stem)
        if found == "random":
            return empty
        state = read_weights(found, empty.layers)
        own = "deep" if has_deep_stem(state) else "plain"
        if stem not in ("auto", own):
            raise UserError(f"{found} has the {own} stem, not backbone.stem={stem}; set backbone.stem=auto")
        backbone = empty if empty.settled()["stem"] == own else cls(**{**options, "stem": own})
        load_strict(backbone, state, str(found))
        return backbone


class ResNet18(ResNet):
    """ResNet-18."""

    def __init__(self, stem: Stem = "auto", stride: Stride = 8) -> None:
        super().__init__(18, stem, stride)


class ResNet34(ResNet):
    """ResNet-34."""

    def __init__(self, stem: Stem = "auto", stride: Stride = 8) -> None:
        super().__init__(34, stem, stride)


class ResNet50(ResNet):
    """ResNet-50."""

    def __init__(self, stem: Stem = "auto", stride: Stride = 8) -> None:
        super().__init__(50, stem, stride)


class ResNet101(ResNet):
    """ResNet-101."""

    def __init__(self, stem: Stem = "auto", stride: Stride = 8) -> None:
        super().__init__(101, stem, stride)
