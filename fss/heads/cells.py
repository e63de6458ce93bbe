"""What several heads do with cells: maps of an image joined or reduced to one, masks as shares of cells, and
averages under masks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.heads.base import Features
from fss.ops import interpolation_matrix, resize


def joined(features: Features, levels: Sequence[str], corners: bool, weights: Sequence[float] = ()) -> Tensor:
    """One map (B,C,h,w), float32, of several levels; one level stays as it is.

    Of several, each cell of each is of length 1, coarser ones are resized to the first, and C is their sum.

    Args:
        weights: factors of the levels; 1 each if there are none.
    """
    first, *others = (features[level].float() for level in levels)
    if not others:
        return first
    size = (first.shape[-2], first.shape[-1])
    parts = [resize(F.normalize(x, dim=1), size, corners) for x in (first, *others)]
    return torch.cat([w * x for w, x in zip(weights, parts, strict=True)] if weights else parts, 1)


def mask_areas(masks: Tensor, cells: tuple[int, int], corners: bool) -> Tensor:
    """How many pixels of background and of foreground each cell stands for: (B,K,H,W) -> (B,K,2,h,w).

    Masks go through the transpose of the resize from `cells` (h,w) to (H,W), so that a sum over cells with
    these weights is a sum over pixels of the resized map. Pixels of 255 count as neither.
    """
    up = interpolation_matrix(cells[0], masks.shape[-2], masks.device, corners)  # (H,h)
    across = interpolation_matrix(cells[1], masks.shape[-1], masks.device, corners)  # (W,w)
    return up.T @ torch.stack([masks == 0, masks == 1], 2).float() @ across


def masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features (M,C,h,w) under soft masks (M,h,w): (M,C); zero where a mask is."""
    total = torch.einsum("mchw,mhw->mc", features, masks)
    return total / (masks.sum((1, 2))[:, None] + 0.0005)


def support_vectors(maps: Tensor, masks: Tensor, corners: bool) -> Tensor:
    """Each support's masked average: maps (B,K,C,h,w) and masks (B,K,H,W) -> (B,K,C), float32."""
    shares = object_shares(masks, maps, corners)
    return masked_average(maps.flatten(0, 1).float(), shares.flatten(0, 1)).unflatten(0, shares.shape[:2])


def conv_of_parts(
    weight: Tensor, parts: Sequence[Tensor], size: tuple[int, int], corners: bool = True
) -> Tensor:
    """A 1x1 convolution of maps side by side, each resized to `size` first: (B,O,*size).

    It is the sum of the parts' own convolutions. Each goes before its resize, which is linear too and keeps
    constants, and a part of one cell is added to all.

    Args:
        weight: (O,I,1,1), its columns in the order of the parts.
        parts: maps (B,C,.,.) of any sizes, of I channels together.
    """
    weights = weight.split([x.shape[1] for x in parts], 1)
    first, *others = (F.conv2d(x, own) for x, own in zip(parts, weights, strict=True))
    whole = lambda x: x if x.shape[-2:] == (1, 1) else resize(x, size, corners)  # noqa: E731
    return sum(map(whole, others), whole(first)).expand(-1, -1, *size)


def conv_of_resized(weight: Tensor, x: Tensor, size: tuple[int, int], corners: bool = True) -> Tensor:
    """A 3x3 convolution with a rim of zeros, of a map that is resized to `size` first: (B,O,*size).

    Both are linear. On the map as it is, the kernel's nine places are nine products; the resize and the
    shift that each of them wants are one matrix for an axis.

    Args:
        weight: (O,C,3,3).
        x: (B,C,h,w).
    """
    (h, w), (height, width) = x.shape[-2:], size
    if height * width <= h * w:
        return F.conv2d(resize(x, size, corners), weight, padding=1)
    down, across = (_resizes_shifted(*a, x, corners) for a in ((h, height), (w, width)))  # (H,3h), (W,3w)
    products = F.conv2d(x, weight.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None])  # (B,9O,h,w)
    places = products.unflatten(1, (-1, 3, 3)).permute(0, 1, 2, 4, 3, 5)  # (B,O,3,h,3,w)
    return down @ (places.flatten(4).flatten(2, 3) @ across.mT)


def _resizes_shifted(cells: int, pixels: int, like: Tensor, corners: bool) -> Tensor:
    """The matrices (pixels,cells) of one axis of `resize`, side by side, moved by -1, 0 and 1 pixel:
    (pixels,3*cells)."""
    line = torch.eye(cells, device=like.device, dtype=like.dtype)
    matrix = F.pad(resize(line[None, None], (pixels, cells), corners)[0, 0], (0, 0, 1, 1))
    return torch.cat([matrix[i : i + pixels] for i in range(3)], 1)


def reduction(inputs: int, width: int, dropout: float) -> nn.Sequential:
    """A 1x1 convolution to `width` channels, ReLU, and channel dropout; `reduced` computes it."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False), nn.ReLU(inplace=True), nn.Dropout2d(dropout)
    )


def reduced(layers: nn.Sequential, maps: Sequence[Tensor], corners: bool) -> Tensor:
    """Levels side by side, at the size of the finest, through a `reduction`: (B,width,h,w)."""
    size = max((x.shape[-2], x.shape[-1]) for x in maps)
    with as_computed(maps[0]):
        x = conv_of_parts(layers.get_parameter("0.weight"), maps, size, corners)
        for layer in list(layers)[1:]:
            x = layer(x)
        return x


def object_shares(masks: Tensor, maps: Tensor, corners: bool) -> Tensor:
    """Masks (B,K,H,W) on the cells of the supports' maps (B,K,C,h,w): (B,K,h,w), foreground from 0 to 1."""
    return resize((masks == 1).float(), (maps.shape[-2], maps.shape[-1]), corners)


def as_computed(x: Tensor) -> torch.autocast:
    """The context in which convolutions are computed as the network computed these features."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16)


def nearest(masks: Tensor, cells: tuple[int, int]) -> Tensor:
    """Masks (...,H,W) -> (...,h,w): cell i takes pixel floor(i * H / h), exactly, whatever it holds."""
    for axis, count in zip((-2, -1), cells, strict=True):
        places = torch.arange(count, device=masks.device) * masks.shape[axis] // count
        masks = masks.index_select(axis, places)
    return masks
