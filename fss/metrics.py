"""Intersection and union, added as counts and divided once.

mIoU is the mean over classes of the foreground IoU, each class's counts summed over all its
episodes; FB-IoU is the mean of background and foreground IoU, each summed over all episodes. Base
training counts every class at once, on whole images and near the boundaries of labels.
"""

from dataclasses import dataclass
from statistics import mean, stdev

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from fss.episode import IGNORE

# 97.5% quantiles of Student's t for 1..30 degrees of freedom; beyond, the normal's 1.96 is close enough.
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def counts(prediction: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of background and foreground, in pixels.

    Args:
        prediction: (B,H,W), 0 or 1.
        mask: (B,H,W), 0, 1, or 255 for pixels that are left out.

    Returns:
        intersection (B,2) and union (B,2), int64, background first.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != mask.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and mask {tuple(mask.shape)} differ in shape")
    valid = mask != IGNORE
    inter, union = [], []
    for value in (0, 1):
        p, m = (prediction == value) & valid, (mask == value) & valid
        inter.append((p & m).flatten(1).sum(1))
        union.append((p | m).flatten(1).sum(1))
    return torch.stack(inter, 1), torch.stack(union, 1)


def confusion(prediction: Tensor, labels: Tensor, n: int, where: Tensor | None = None) -> Tensor:
    """How many pixels of label i were predicted to be j: (n,n) int64.

    Args:
        prediction, labels: (B,H,W), 0..n-1; labels of 255 are left out.
        where: (B,H,W) bool, pixels that count; all without.
    """
    valid = labels != IGNORE if where is None else where & (labels != IGNORE)
    return torch.bincount(labels[valid] * n + prediction[valid], minlength=n * n).view(n, n)


def mean_iou(matrix: Tensor) -> float:
    """Mean over the classes from 1 on that labels show of the IoU of a `confusion`; NaN if there is none."""
    matrix = matrix.double()
    inter, union = matrix.diag(), matrix.sum(0) + matrix.sum(1) - matrix.diag()
    seen = matrix.sum(1)[1:] > 0
    return float((inter / union.clamp(min=1))[1:][seen].mean()) if bool(seen.any()) else float("nan")


def boundary_band(labels: Tensor, reach: int = 3) -> Tensor:
    """Labelled pixels with another label at most `reach` rows and columns away: labels (B,H,W) -> bool.

    255 is a label like any other here, since borders of objects are drawn in it; but rows and columns
    of nothing else are the canvas's padding, and no boundary.
    """
    ignored = labels == IGNORE
    padding = (ignored.all(1, keepdim=True) | ignored.all(2, keepdim=True)).expand_as(labels)
    x = labels.float()[:, None]
    extremes = [
        F.max_pool2d((sign * x).masked_fill(padding[:, None], -torch.inf), 2 * reach + 1, 1, reach)[:, 0]
        for sign in (1, -1)
    ]
    return (extremes[0] != -extremes[1]) & ~ignored


@dataclass(frozen=True)
class Scores:
    """Scores in percent. `per_class` maps class id to IoU; classes without episodes are absent."""

    miou: float
    fb_iou: float
    per_class: dict[int, float]


class EpisodeScore:
    """Adds the counts of episodes, over batches and processes, and divides them once.

    Args:
        num_classes: class ids run 1..num_classes.
    """

    def __init__(self, num_classes: int) -> None:
        # [class, intersection or union, background or foreground]
        self.totals = torch.zeros(num_classes + 1, 2, 2, dtype=torch.int64)

    def update(self, class_id: Tensor, intersection: Tensor, union: Tensor) -> None:
        """Add episodes: class_id (B,), intersection (B,2), union (B,2) as from `counts`."""
        both = torch.stack([intersection, union], 1).cpu()  # (B,2,2)
        self.totals.index_add_(0, class_id.cpu().long(), both)

    def all_reduce(self, device: torch.device) -> None:
        """Sum the counts over all processes, if there are several."""
        if dist.is_available() and dist.is_initialized():
            totals = self.totals.to(device)
            dist.all_reduce(totals)
            self.totals = totals.cpu()

    def compute(self) -> Scores:
        """The scores of all that was added; a class or side that was never seen is left out."""
        totals = self.totals.double()
        per_class = {
            c: 100 * float(totals[c, 0, 1] / totals[c, 1, 1])
            for c in range(len(totals))
            if totals[c, 1, 1] > 0
        }
        inter, union = totals.sum(0)
        sides = [100 * float(i / u) for i, u in zip(inter, union, strict=True) if u > 0]
        return Scores(
            miou=mean(per_class.values()) if per_class else float("nan"),
            fb_iou=mean(sides) if sides else float("nan"),
            per_class=per_class,
        )


def interval95(values: list[float]) -> float | None:
    """Half width of the 95% confidence interval of the mean (Student's t); None for a single value."""
    n = len(values)
    if n < 2:
        return None
    t = _T975[n - 2] if n - 2 < len(_T975) else 1.96
    return t * stdev(values) / n**0.5


def mean_average_precision(scores: Tensor, truth: Tensor) -> float:
    """How well images are sorted by class, percent: the mean over classes of the average precision.

    Args:
        scores: (images, classes), higher where a class is rather there.
        truth: (images, classes) bool. Classes that no image shows are left out; with none left, not a number.
    """
    found = []
    for own, there in zip(scores.T, truth.T, strict=True):
        if there.any():
            hits = there[own.argsort(descending=True, stable=True)].double()
            precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1, device=hits.device)
            found.append(float((precision * hits).sum() / hits.sum()))
    return 100 * mean(found) if found else float("nan")
