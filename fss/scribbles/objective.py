"""The three losses of feature clustering and their gradient, computed together, strip by strip.

Kim, Kanezaki, Tanaka: "Unsupervised Learning of Image Segmentation Based on Differentiable Feature
Clustering", IEEE TIP 2020 (arXiv 2007.09990), section III. Autograd would pass over maps of
q channels some twenty times; a strip of a few rows stays in the processor's cache meanwhile.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fss.episode import IGNORE

_STRIP = 2**18  # numbers in a strip: 1 MiB in float32


class Weights(NamedTuple):
    """The weight of each loss in the sum."""

    similarity: float = 1.0
    continuity: float = 1.0
    scribble: float = 0.5


class Found(NamedTuple):
    """Attributes:
    losses: (3,) float32, similarity, continuity, scribble, before their weights.
    labels: (H,W) int64, each pixel's strongest channel.
    gradient: (1,q,H,W), of the weighted sum, in the response's own number format.
    """

    losses: Tensor
    labels: Tensor
    gradient: Tensor


@torch.no_grad()
def objective(
    response: Tensor, scribble: Tensor | None, weights: Weights, buffer: Tensor | None = None
) -> Found:
    """Losses of a response map, its labels, and the gradient of the losses' weighted sum.

    Similarity: mean cross-entropy against the pixel's own strongest channel, over pixels without a scribble.
    Continuity: mean absolute difference of neighbours, down plus across. Scribble: mean cross-entropy against
    the scribble's label, over its pixels.

    Args:
        response: (1,q,H,W).
        scribble: (H,W), labels below q, 255 where nothing is marked; None without scribbles.
        buffer: an earlier call's gradient, which is overwritten.
    """
    rows = response.detach()[0].permute(1, 2, 0).contiguous()  # (H,W,q), free in channels_last
    height, width, q = rows.shape
    marks = rows.new_full((height, width), IGNORE, dtype=torch.int64) if scribble is None else scribble.long()
    weight = _pixel_weights(marks, weights)  # (H,W)
    down, across = (weights.continuity / max(n * q, 1) for n in ((height - 1) * width, height * (width - 1)))
    if buffer is None:
        buffer = torch.empty_like(response, memory_format=torch.channels_last)
    out = buffer[0].permute(1, 2, 0)  # (H,W,q), a view
    labels, entropy = torch.empty_like(marks), torch.empty_like(weight)
    steps = rows.new_zeros(2, dtype=torch.float32)  # sums of absolute differences, down and across
    above: Tensor | float = 0.0
    size = height if response.is_cuda else max(_STRIP // (width * q), 1)
    for top in range(0, height, size):
        end = min(top + size, height)
        x = rows[top : end + 1].float()  # (n+1,W,q), with the next strip's first row; (n,W,q) at the end
        here, w = x[: end - top], weight[top:end]
        peak, labels[top:end] = here.max(-1)
        target = torch.where(marks[top:end] == IGNORE, labels[top:end], marks[top:end])[..., None]
        chosen = here.gather(-1, target)[..., 0]
        gradient = (here - peak[..., None]).exp_()
        total = gradient.sum(-1)
        entropy[top:end] = total.log() + peak - chosen
        gradient *= (w / total)[..., None]
        gradient.scatter_add_(-1, target, -w[..., None])
        gradient[0] += above
        above = _differences(x, gradient, steps, down, across)
        out[top:end] = gradient
    free = marks == IGNORE
    losses = torch.stack(
        [
            _mean(entropy, free),
            steps[0] / max((height - 1) * width * q, 1) + steps[1] / max(height * (width - 1) * q, 1),
            _mean(entropy, ~free),
        ]
    )
    return Found(losses, labels, buffer)


def _differences(x: Tensor, gradient: Tensor, sums: Tensor, down: float, across: float) -> Tensor | float:
    """Add the continuity loss of rows x to `sums`, its gradient to `gradient`; return the next row's part."""
    gap = x[1:] - x[:-1]  # (n,W,q), or one row less at the image's end
    sums[0] += gap.abs().sum()
    gap = gap.sign_().mul_(down)
    gradient[: len(gap)] -= gap
    gradient[1:] += gap[: len(gradient) - 1]
    following: Tensor | float = gap[-1] if len(gap) == len(gradient) else 0.0
    here = x[: len(gradient)]
    gap = here[:, 1:] - here[:, :-1]
    sums[1] += gap.abs().sum()
    gap = gap.sign_().mul_(across)
    gradient[:, :-1] -= gap
    gradient[:, 1:] += gap
    return following


def _pixel_weights(marks: Tensor, weights: Weights) -> Tensor:
    """The weight of a pixel's cross-entropy in the sum, (H,W): each kind's weight over its pixels."""
    free = marks == IGNORE
    number = free.sum().clamp(min=1), (~free).sum().clamp(min=1)
    return torch.where(free, weights.similarity / number[0], weights.scribble / number[1]).float()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
