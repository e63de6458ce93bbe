"""Context modules: from a query's features and its guide to logits.

`Pyramid` is the feature enrichment module of Tian et al., "Prior Guided Feature Enrichment Network for
Few-Shot Segmentation", TPAMI 2020, https://arxiv.org/abs/2008.01449 (section 4.2), which ASGNet took over.
`ASPP` is ASGNet's other choice, after Chen et al., DeepLabv3+, ECCV 2018. Parameter names are those of
ASGNet's published weights. `MetaLearner` is that of Lang et al., "Learning What Not to Segment", CVPR 2022,
https://arxiv.org/abs/2203.07615, with its names.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.cells import conv_of_parts
from fss.ops import resize, segmentation_loss

DILATIONS = (6, 12, 18)


def _conv(inputs: int, outputs: int, kernel: int, bias: bool = False, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=bias)


def _relu(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _twice(width: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU."""
    return nn.Sequential(*_relu(_conv(width, width, 3)), *_relu(_conv(width, width, 3)))


def _classifier(width: int) -> nn.Sequential:
    return nn.Sequential(*_relu(_conv(width, width, 3)), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))


class Pyramid(nn.Module):
    """Query and guide at several scales, coarse ones learning from finer ones.

    Args:
        width: C of query and guide.
        sizes: of the scales, finest first. Whole numbers are cells, of squares, also where the maps are
            smaller; floats up to 1 are shares of each side of the maps, rounded down.
    """

    levels = ()

    def __init__(self, width: int, sizes: Sequence[float] = (60, 30, 15, 8)) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        every = range(len(self.sizes))
        self.corr_conv = nn.ModuleList(_relu(_conv(2 * width + 1, width, 1)) for _ in every)
        self.alpha_conv = nn.ModuleList(_relu(_conv(2 * width, width, 1)) for _ in every[1:])
        self.beta_conv = nn.ModuleList(_twice(width) for _ in every)
        self.inner_cls = nn.ModuleList(_classifier(width) for _ in every)
        self.res1 = _relu(_conv(len(self.sizes) * width, width, 1))
        self.res2 = _twice(width)
        self.cls = _classifier(width)

    def forward(
        self, query: Tensor, guide: Tensor, likeness: Tensor, auxiliary: bool, levels: dict[str, Tensor],
        corners: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Logits, and those of every scale.

        Args:
            query: (B,C,h,w).
            guide: what the query is to look for, (B,C,h,w), or (B,C,1,1) where it is the same at every cell.
            likeness: (B,1,.,.) how much each place of the query looks like the supports.
            auxiliary: whether the scales' own logits are wanted; only training needs them.
            levels: the query's encoded levels; not used.
            corners: as of `fss.ops.resize`.

        Returns:
            (B,2,h,w), and a list of (B,2,.,.), of each scale's size.
        """
        at = (query.shape[-2], query.shape[-1])
        maps: list[Tensor] = []
        logits = []
        for i, side in enumerate(self.sizes):
            size = size_of(side, at)
            parts = [_pooled(query, size), _pooled(guide, size), resize(likeness, size, corners)]
            x = _of_parts(self.corr_conv[i], parts, size, corners)  # (B,C,*size)
            if i:
                finer = resize(resize(maps[-1], at, corners), size, corners)
                x = x + self.alpha_conv[i - 1](torch.cat([x, finer], 1))
            x = x + self.beta_conv[i](x)
            maps.append(x)
            if auxiliary:
                logits.append(self.inner_cls[i](x))
        x = _of_parts(self.res1, maps, at, corners)  # (B,C,h,w)
        return self.cls(x + self.res2(x)), logits


def size_of(side: float, at: tuple[int, int]) -> tuple[int, int]:
    """A scale's height and width in cells, as of `Pyramid`, of maps (h,w)."""
    if isinstance(side, float) and side <= 1:
        return max(int(side * at[0]), 1), max(int(side * at[1]), 1)
    return int(side), int(side)


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over each of `size` cells; what is the same everywhere stays one cell."""
    return x if x.shape[-2:] in (torch.Size(size), (1, 1)) else F.adaptive_avg_pool2d(x, size)


def _of_parts(layer: nn.Module, parts: Sequence[Tensor], size: tuple[int, int], corners: bool) -> Tensor:
    """A 1x1 convolution and its ReLU on maps side by side."""
    weight = layer.get_parameter("0.weight")
    return conv_of_parts(weight, parts, size, corners).relu()


def auxiliary_loss(scales: Sequence[Tensor], masks: Tensor, corners: bool) -> Tensor:
    """The mean over scales of their cross-entropies, each resized straight to the masks (B,H,W)."""
    return torch.stack([segmentation_loss(s, masks, False, corners) for s in scales]).mean()


class ASPP(nn.Module):
    """Residual blocks, dilated convolutions, and a decoder that looks at stage 1 once more.

    Args:
        width: C of query and guide.
        fine: channels of stage 1.
    """

    levels = ("stage1",)

    def __init__(self, width: int, fine: int = 256) -> None:
        super().__init__()
        self.corr_conv = nn.Sequential(*_relu(_conv(2 * width + 1, width, 3)), nn.Dropout2d(0.5))
        self.skip1, self.skip2, self.skip3 = (_Residual(width) for _ in range(3))
        self.ASPP = _Dilated(width)
        self.decoder = _Decoder(width, fine)
        self.cls, self.cls_aux = _classifier(width), _classifier(width)

    def forward(
        self, query: Tensor, guide: Tensor, likeness: Tensor, auxiliary: bool, levels: dict[str, Tensor],
        corners: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """As `Pyramid.forward`; the logits are as fine as stage 1, which `levels` holds."""
        x = self.corr_conv(torch.cat([query, guide, likeness], 1))  # (B,C,h,w)
        x = self.ASPP(self.skip3(self.skip2(self.skip1(x))))
        logits = self.cls(self.decoder(x, levels["stage1"].to(x.dtype), corners))
        return logits, [self.cls_aux(x)] if auxiliary else []


class _Residual(nn.Sequential):
    """ReLU(x) + conv(ReLU(conv(ReLU(x)))): the shortcut is rectified too, as published."""

    def __init__(self, width: int) -> None:
        convs = _conv(width, width, 3), _conv(width, width, 3)
        super().__init__(nn.ReLU(), convs[0], nn.ReLU(), convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + super().forward(x)


def _dropped(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    conv = _conv(inputs, outputs, kernel, True, dilation)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout2d(0.5))


class _Dilated(nn.Module):
    """Image pooling, 1x1, and three dilated 3x3 convolutions, merged by a 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        one, two, three = DILATIONS
        self.layer6_0, self.layer6_1 = _dropped(width, width, 1), _dropped(width, width, 1)
        self.layer6_2, self.layer6_3 = _dropped(width, width, 3, one), _dropped(width, width, 3, two)
        self.layer6_4 = _dropped(width, width, 3, three)
        self.layer7 = _dropped(5 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,h,w) -> the same."""
        whole = self.layer6_0(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        parts = [whole, self.layer6_1(x), self.layer6_2(x), self.layer6_3(x), self.layer6_4(x)]
        return self.layer7(torch.cat(parts, 1))


class MetaLearner(nn.Module):
    """Query, guide and prior at one scale, through dilated convolutions side by side.

    Args:
        width: C of query and guide.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.init_merge = _relu(_conv(2 * width + 1, width, 1))
        self.ASPP_meta = _SideBySide(width)
        self.res1_meta = _relu(_conv(5 * width, width, 1))
        self.res2_meta = _twice(width)
        self.cls_meta = _classifier(width)

    def forward(self, query: Tensor, guide: Tensor, prior: Tensor, corners: bool = True) -> Tensor:
        """Logits (B,2,h,w) of query (B,C,h,w), guide (B,C,1,1) and prior (B,1,.,.)."""
        size = (query.shape[-2], query.shape[-1])
        x = _of_parts(self.init_merge, [query, guide, prior], size, corners)  # (B,C,h,w)
        x = _of_parts(self.res1_meta, self.ASPP_meta(x), size, corners)
        return self.cls_meta(x + self.res2_meta(x))


class _SideBySide(nn.Module):
    """Image pooling, 1x1, and three dilated 3x3 convolutions, not merged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        one, two, three = DILATIONS
        self.layer6_0, self.layer6_1 = (_relu(_conv(width, width, 1, True)) for _ in range(2))
        self.layer6_2, self.layer6_3 = (_relu(_conv(width, width, 3, True, d)) for d in (one, two))
        self.layer6_4 = _relu(_conv(width, width, 3, True, three))
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,C,h,w) -> (B,C,1,1) of the whole map, and four of x's shape."""
        whole = self.layer6_0(x.mean((2, 3), keepdim=True))
        return [whole, self.layer6_1(x), self.layer6_2(x), self.layer6_3(x), self.layer6_4(x)]


class _Decoder(nn.Module):
    """The context, resized to stage 1, beside a thin version of it."""

    def __init__(self, width: int, fine: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fine, 64, 1, bias=False), nn.BatchNorm2d(64)
        merge, norm = _conv(width + 64, width, 3), nn.BatchNorm2d(width)
        self.last_conv = nn.Sequential(merge, norm, nn.ReLU(inplace=True), nn.Dropout(0.5))

    def forward(self, x: Tensor, fine: Tensor, corners: bool) -> Tensor:
        """(B,C,h,w) and stage 1 (B,.,H/4,W/4) -> (B,C,H/4,W/4)."""
        thin = F.relu(self.bn1(self.conv1(fine)))
        size = (thin.shape[-2], thin.shape[-1])
        return self.last_conv(torch.cat([resize(x, size, corners), thin], 1))
