"""ResNet-18/34/50/101 for segmentation, dilated or not (He et al., CVPR 2016; Yu et al., CVPR 2017)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

STAGES = ("stage1", "stage2", "stage3", "stage4")
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
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)  # in place: no gradient needs the sum's parts
        return self.relu(y)


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
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stem(deep: bool) -> tuple[nn.Sequential, int]:
    """The layers before the stages, and their channels. Indices are those of published weights."""
    pool = nn.MaxPool2d(3, 2, 1)
    relu = nn.ReLU(inplace=True)
    if not deep:
        return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), relu, pool), 64
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 64, 2), (64, 64, 1), (64, 128, 1)):
        layers += [_conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs), relu]
    return nn.Sequential(*layers, pool), 128


def stage_channels(layers: int) -> dict[str, int]:
    """Channels of "stage1".."stage4"."""
    expansion = Bottleneck.expansion if layers >= 50 else BasicBlock.expansion
    return {stage: planes * expansion for stage, planes in zip(STAGES, (64, 128, 256, 512), strict=True)}


class ResNet(nn.Module):
    """ResNet with stages of stride 4, 8, 8, 8: 3 and 4 keep the resolution and dilate by 2 and 4.

    Args:
        layers: 18, 34, 50 or 101.
        deep_stem: three 3x3 convolutions (published few-shot weights) in place of one 7x7 (torchvision).
        stride: of stage 4, in pixels; with 32 in place of 8 nothing is dilated: 4, 8, 16, 32. Parameters
            are the same.

    Attributes:
        channels: level name -> C, for "stage1".."stage4".
    """

    def __init__(self, layers: int = 50, deep_stem: bool = True, stride: int = 8) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"ResNet-{layers} is not offered; allowed: {', '.join(map(str, BLOCKS))}")
        if stride not in _PLANS:
            raise ValueError(f"stride {stride} is not offered; allowed: {', '.join(map(str, _PLANS))}")
        self.layers, self.deep_stem, self.stride = layers, deep_stem, stride
        self.layer0, self._inputs = _stem(deep_stem)
        block = Bottleneck if layers >= 50 else BasicBlock
        plan = zip(BLOCKS[layers], (64, 128, 256, 512), *_PLANS[stride], strict=True)
        for i, (depth, planes, step, dilation) in enumerate(plan, 1):
            setattr(self, f"layer{i}", self._stage(block, depth, planes, step, dilation))
        self.channels = stage_channels(layers)
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

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """Images (B,3,H,W) -> {level: (B,C,h,w)} for the levels asked for; nothing deeper is computed."""
        deepest = max(STAGES.index(level) for level in levels)
        x = images.to(memory_format=torch.channels_last)
        x, out = self.layer0(x), {}
        for name in STAGES[: deepest + 1]:
            x = getattr(self, f"layer{name[-1]}")(x)
            if name in levels:
                out[name] = x
        return out
