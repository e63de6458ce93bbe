"""Pure tensor functions that several parts share. Letters as in `fss.episode`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.episode import IGNORE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's RGB, of values 0..1


def normalise(images: Tensor) -> Tensor:
    """Images (...,3,H,W) of 0..255, bytes or floats -> float32 with ImageNet's mean and deviation."""
    mean, deviation = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    return (images.float() - 255 * mean) / (255 * deviation)


def to_rgb(images: Tensor) -> Tensor:
    """The inverse of `normalise`: (...,3,H,W) normalised -> RGB of 0..255, float32."""
    mean, deviation = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    return 255 * (images.float() * deviation + mean)


def resize(x: Tensor, size: tuple[int, int], corners: bool = True) -> Tensor:
    """Bilinear resize of (B,C,h,w) to (B,C,*size).

    `corners`: corners lie on corners, as the field's published methods have it; without, cells are the
    middles of patches (`Backbone.corners`).
    """
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=corners)


def interpolation_matrix(
    cells: int, pixels: int, device: torch.device | None = None, corners: bool = True
) -> Tensor:
    """The matrix (pixels, cells) of one axis of `resize`: resize(x) = Y @ x @ X^T, exactly."""
    position = torch.linspace(0, cells - 1, pixels, device=device)  # in cells
    if not corners:
        middles = (torch.arange(pixels, device=device) + 0.5) * (cells / pixels) - 0.5
        position = middles.clamp(0, cells - 1)
    grid = torch.arange(cells, device=device)
    return (1 - (position[:, None] - grid).abs()).clamp(min=0)


def foreground(logits: Tensor, size: tuple[int, int], corners: bool = True) -> Tensor:
    """Where the foreground leads in logits (B,2,h,w) resized to `size`: (B,H,W) of 0 and 1.

    The argmax of the resized logits, from one map in place of two.
    """
    return (resize((logits[:, 1:] - logits[:, :1]).float(), size, corners)[:, 0] > 0).long()


def binary_mask(labels: Tensor, class_id: Tensor) -> Tensor:
    """Label maps (B,...,H,W) and classes (B,) -> 1 for the class, 255 kept, 0 for all else (int64)."""
    class_id = class_id.view(-1, *[1] * (labels.dim() - 1))
    mask = (labels == class_id).long()
    return mask.masked_fill_(labels == IGNORE, IGNORE)


def without_foreground(masks: Tensor) -> Tensor:
    """Which episodes (B,) have no foreground pixel in any support mask (B,K,H,W)."""
    return ~(masks == 1).flatten(1).any(1)


def class_weights(masks: Tensor) -> Tensor:
    """Weights (B,2) for background and foreground: 1 and (background / foreground pixels).

    Masks (B,...) are counted over all but the first axis; 255 counts as neither. Where there is no
    foreground pixel, its weight is 1.
    """
    flat = masks.flatten(1)
    background, foreground = (flat == 0).sum(1).float(), (flat == 1).sum(1).float()
    ratio = torch.where(foreground > 0, background / foreground.clamp(min=1), 1.0)
    return torch.stack([torch.ones_like(ratio), ratio], 1)  # (B,2)


def loss_weight(masks: Tensor, balanced: bool) -> Tensor:
    """What `segmentation_loss` is a mean over: episodes where balanced, else pixels that are not 255."""
    return masks.new_tensor(len(masks)).float() if balanced else (masks != IGNORE).sum().float()


def segmentation_loss(logits: Tensor, masks: Tensor, balanced: bool, corners: bool = True) -> Tensor:
    """Cross-entropy of logits (B,2,h,w), resized to masks (B,H,W), 255 left out: mean over all pixels.

    With `balanced`, an episode's pixels are weighted by `class_weights` of its mask and divided by
    the sum of those weights, so that every episode counts alike. Masks of 255 alone add 0.
    """
    # With two classes cross-entropy is the softplus of how far the other class leads: one map to resize.
    lead = logits[:, 1:].float() - logits[:, :1].float()
    lead = resize(lead, (masks.shape[-2], masks.shape[-1]), corners)[:, 0]
    target = masks.long()
    loss = F.softplus(torch.where(target == 1, -lead, lead))  # (B,H,W)
    weight = (target != IGNORE).float()
    if not balanced:
        return (loss * weight).sum() / weight.sum().clamp(min=1)
    per_class = class_weights(masks)  # (B,2)
    weight *= torch.where(target == 1, per_class[:, 1, None, None], per_class[:, 0, None, None])
    weight = weight.flatten(1)
    return ((loss.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1e-12)).mean()


def exporting() -> bool:
    """Whether this is run to be exported, where no shape may depend on what tensors hold."""
    return bool(getattr(torch.compiler, "is_exporting", lambda: False)())  # PyTorch 2.6 has no such question


def repeat(step: Callable[[Tensor], Tensor], start: Tensor, times: int) -> Tensor:
    """`step` applied `times` times over; in an exported graph a loop, so that it stays small."""
    if times > 1 and exporting():
        from torch._higher_order_ops.scan import scan

        count = torch.zeros(times, 1, device=start.device)
        return scan(lambda x, _: (step(x), x.new_zeros(1)), start, count)[0]
    for _ in range(times):
        start = step(start)
    return start
