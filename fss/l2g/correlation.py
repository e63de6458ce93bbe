"""Pixel correlation: response maps spread over pixels that look alike (SEAM, Wang et al., CVPR 2020)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelCorrelation(nn.Module):
    """Affinity between pixels from low features and colours, applied to the response map.

    The module is defined on the features before the classifier; since that is linear, without a bias and the
    same for each pixel, its response map may be spread instead: the same numbers from fewer channels.

    Args:
        channels: level -> channels of the backbone.
        cells: where the map has more than `cells` x `cells` pixels, the affinity, pixels x pixels, is
            computed and applied on a smaller one, so that memory is bounded by 4 * cells^4 bytes an image.
    """

    levels = ("stage2", "stage3")

    def __init__(self, channels: Mapping[str, int], cells: int = 56) -> None:
        super().__init__()
        self.cells = cells
        self.low = nn.Conv2d(channels["stage2"], 64, 1, bias=False)
        self.high = nn.Conv2d(channels["stage3"], 128, 1, bias=False)
        self.mix = nn.Conv2d(3 + 64 + 128, 192, 1, bias=False)

    def forward(self, response: Tensor, images: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Response map (B,C,h,w), images (B,3,H,W), features of `levels` -> spread map (B,C,h,w)."""
        h, w = response.shape[-2:]
        shrink = min(1.0, self.cells / (h * w) ** 0.5)
        size = (max(int(h * shrink), 1), max(int(w * shrink), 1))
        low, high = (features[level].detach() for level in self.levels)
        parts = [images, self.low(low), self.high(high)]
        mixed = self.mix(torch.cat([_resize(x.float(), size) for x in parts], 1))  # (B,192,*size)
        with torch.autocast(response.device.type, enabled=False):
            spread = _resize(response, size).flatten(2) @ affinity(mixed.float())
            return _resize(spread.unflatten(2, size), (h, w))


def affinity(features: Tensor) -> Tensor:
    """Features (B,C,h,w) -> (B,hw,hw): how alike pixels are, each column summing to 1 (but for 1e-5)."""
    flat = features.flatten(2)
    flat = flat / (flat.norm(dim=1, keepdim=True) + 1e-5)
    alike = F.relu(flat.transpose(1, 2) @ flat)
    return alike / (alike.sum(1, keepdim=True) + 1e-5)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
