"""From response maps to pseudo-masks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 32  # pixels: no side is computed smaller


@torch.no_grad()
def responses(
    network: nn.Module, image: Tensor, scales: Sequence[float], flips: bool, longest: int, half: bool,
    probability: bool = False,
) -> Tensor:  # fmt: skip
    """Response maps of one image over scales and flips, averaged at the image's size.

    Args:
        network: images (B,3,H,W) -> (B,C+1,h,w), background last.
        image: (3,H,W) uint8.
        scales: factors on the image's size, or on that of its longer side at `longest` where it is larger.
        half: compute in bfloat16.
        probability: of the softmax over channels, in place of the responses themselves.

    Returns:
        (C,H,W) float32, without the background.
    """
    h, w = image.shape[-2:]
    base = min(1.0, longest / max(h, w))
    pixels = image.float()[None]
    total: Tensor | None = None
    for scale in scales:
        size = [max(round(side * base * scale), LEAST) for side in (h, w)]
        view = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        views = torch.cat([view, view.flip(3)]) if flips else view
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            maps = network(views).float()
        maps = F.interpolate(
            (maps.softmax(1) if probability else maps)[:, :-1], (h, w), mode="bicubic", align_corners=False
        )
        maps = (maps[:1] + maps[1:].flip(3)) / 2 if flips else maps
        total = maps if total is None else total + maps
    assert total is not None
    return total[0] / len(scales)


def scaled(response: Tensor, present: Tensor) -> Tensor:
    """Averaged response maps (C,H,W) -> (C,H,W) in 0..1, each over its maximum; absent classes are 0.

    Args:
        present: (C,) bool, the image's labels.
    """
    positive = response.clamp(min=0)
    return positive / (positive.amax((1, 2), keepdim=True) + 1e-8) * present[:, None, None]


def pseudo_mask(maps: Tensor, background: float) -> tuple[Tensor, Tensor]:
    """Scaled maps (C,H,W) -> labels (H,W): 0 where none exceeds `background`, else 1 + the largest channel;
    and how large that is (H,W), in 0..1."""
    most, largest = maps.max(0)
    return torch.where(most > background, largest + 1, 0), most
