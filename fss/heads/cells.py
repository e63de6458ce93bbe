"""What several heads do with cells: maps of an image joined into one, and masks as shares of cells."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

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
