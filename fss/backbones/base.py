"""What a backbone is: the contract that model, necks and heads rely on, and all they know of it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss.backbones.weights import load_strict, read_state
from fss.errors import UserError

STAGES = ("stage1", "stage2", "stage3", "stage4")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB of values 0..1


class Backbone(nn.Module):
    """Base class of all backbones. A backbone takes plain keyword arguments and is frozen under the heads.

    Levels are named "stage1" to "stage4" from fine to coarse; a network may offer single blocks beside
    them, "stage3.2", and what a block adds up before its last activation, "stage3.2:sum".

    Attributes:
        channels: level -> C, for every level that it offers.
        strides: level -> pixels from one cell to the next.
        mean, std: of RGB in 0..1, as the network was trained with; `pixels` applies them.
        corners: True where the corner cells lie on the corner pixels (padded convolutions); False where cells
            are the middles of patches.
        multiple: sides of images must be a multiple of it, pixels.
        smallest: the smallest side that it can take, pixels.
    """

    channels: Mapping[str, int]
    strides: Mapping[str, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    corners: bool = True
    multiple: int = 1
    smallest: int = 17

    def forward(self, images: Tensor, levels: Collection[str] = ("stage4",)) -> dict[str, Tensor]:
        """RGB of 0..255, bytes or floats, (B,3,H,W) -> {level: (B,C,h,w)}; nothing deeper is computed."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def resume(self, x: Tensor, after: str, levels: Collection[str]) -> dict[str, Tensor]:
        """Go on from the map (B,C,h,w) of stage `after`, to deeper levels; a backbone need not offer it.

        Raises:
            UserError: this backbone cannot.
        """
        raise UserError(
            f"{type(self).__name__} cannot go on from {after}, which this head asks for; where it has the "
            "option, head.cut=nothing takes supports whole"
        )

    def pixels(self, images: Tensor) -> Tensor:
        """RGB of 0..255 (B,3,H,W) -> what the layers take: mean and deviation applied in float32, then in the
        layers' own number format, channels last."""
        mean, deviation = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (self.mean, self.std))
        x = (images.float() - 255 * mean) / (255 * deviation)
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        return x.to(dtype).to(memory_format=torch.channels_last)

    def parts(self) -> list[nn.Module]:
        """Stem, then stages, for recipes that treat them apart; a backbone need not tell.

        Raises:
            UserError: this one does not.
        """
        raise UserError(f"{type(self).__name__} does not tell its parts, which pseudo.frozen_norms asks for")

    def up_to(self, levels: Collection[str]) -> "Backbone":
        """The same network, where possible without layers that these levels do not need (`fss export`)."""
        return self

    def settled(self) -> dict[str, Any]:
        """Options that only the weights decided; they join the configured ones in checkpoints."""
        return {}

    @classmethod
    def with_weights(cls, weights: str, *family: str, **options: Any) -> "Backbone":
        """The network with its weights.

        Args:
            weights: "random", "download", "auto" (whatever is installed or lies in initmodel/), or a file.
            family: the name behind the colon, of a backbone such as `timm:NAME`.
            options: the constructor's keyword arguments.

        Raises:
            UserError: weights are missing or do not fit; the message says what to do.
        """
        backbone = cls(*family, **options)
        if weights == "random":
            return backbone
        if weights in ("auto", "download"):
            raise UserError(
                f"backbone.weights={weights}: {cls.__name__} comes with none; allowed: random, or a file of "
                "its state dict"
            )
        load_strict(backbone, read_state(Path(weights)), weights)
        return backbone


def check_size(backbone: Backbone, size: int, what: str = "data.size") -> None:
    """Raise `UserError` where a network cannot take images of `size` x `size`; names the nearest."""
    near = _nearest(backbone, size)
    if size in near:
        return
    step, least = backbone.multiple, _least(backbone)
    rule = f"multiples of {step} from {least} on" if step > 1 else f"{least} and above"
    raise UserError(
        f"{what}={size}: {type(backbone).__name__} takes {rule}; nearest: {', '.join(map(str, near))}"
    )


def nearest_size(backbone: Backbone, size: int) -> int:
    """The side nearest to `size` pixels that a network can take."""
    return min(_nearest(backbone, size), key=lambda side: abs(side - size))


def _least(backbone: Backbone) -> int:
    return -(-backbone.smallest // backbone.multiple) * backbone.multiple


def _nearest(backbone: Backbone, size: int) -> list[int]:
    """The sides that a network can take next to `size`, which is the only one where it is one of them."""
    step, least = backbone.multiple, _least(backbone)
    if size <= least:
        return [least]
    below = size // step * step
    return [below] if below == size else [below, below + step]
