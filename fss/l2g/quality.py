"""How good pseudo-masks are, against true ones: counts per image, added up and divided once."""

from collections.abc import Iterable, Sequence

import numpy as np

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
# class number (0 background) -> intersection, prediction and truth in pixels, for each threshold
Counts = dict[int, tuple[list[int], list[int], list[int]]]


def image_counts(
    largest: np.ndarray, confidence: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]
) -> Counts:
    """Pixels of one image, at each background threshold.

    Args:
        largest: (H,W) numbers from 1 on, the class that responds most.
        confidence: (H,W), how much it does.
        truth: (H,W) numbers of the classes, 0 background, -1 ignored.
    """
    valid = truth >= 0
    largest, confidence, truth = largest[valid], confidence[valid], truth[valid]
    classes = [int(c) for c in np.union1d(np.union1d(largest, truth), [0])]
    counts: Counts = {c: ([], [], []) for c in classes}
    for threshold in thresholds:
        prediction = np.where(confidence > threshold, largest, 0)
        for c in classes:
            p, t = prediction == c, truth == c
            for values, value in zip(counts[c], (p & t, p, t), strict=True):
                values.append(int(value.sum()))
    return counts


def quality(
    images: Iterable[Counts], thresholds: Sequence[float], names: Sequence[str]
) -> list[dict[str, object]]:
    """Scores at each threshold, percent: mean IoU of the classes that are there, without and with background,
    and each class's own.

    Args:
        names: of the classes, number 1 first.
    """
    totals: dict[int, np.ndarray] = {}
    for counts in images:
        for c, added in counts.items():
            totals[c] = totals.get(c, 0) + np.array(added, np.int64)  # (3,thresholds)
    rows: list[dict[str, object]] = []
    for i, threshold in enumerate(thresholds):
        iou = {}
        for c in sorted(totals):
            inter, prediction, truth = (int(x) for x in totals[c][:, i])
            if totals[c][2].any():  # a class that no image shows has no IoU
                iou[c] = 100 * inter / (prediction + truth - inter)
        own = [v for c, v in iou.items() if c]
        rows.append({
            "background": threshold,
            "miou": round(float(np.mean(own)), 2) if own else None,
            "miou_with_background": round(float(np.mean(list(iou.values()))), 2) if iou else None,
            "per_class": {"background" if c == 0 else names[c - 1]: round(v, 2) for c, v in iou.items()},
        })  # fmt: skip
    return rows
