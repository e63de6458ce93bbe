"""Classes that a fold holds out. Label values run 1..N; 0 is background."""

from collections.abc import Sequence

import numpy as np


def novel_classes(num_classes: int, fold: int, folds: int, scheme: str) -> list[int]:
    """Class ids that `fold` holds out for testing.

    Args:
        fold: 0..folds-1, or -1 for every class (cross-domain tests).
        scheme: "contiguous" blocks (PASCAL-5i: 5i+1..5i+5), as equal as they come, or "interleaved"
            (COCO-20i: i+1, i+1+folds, ...).

    Raises:
        ValueError: unknown scheme, fold out of range, or fewer classes than folds.
    """
    every = list(range(1, num_classes + 1))
    if fold == -1:
        return every
    if not 0 <= fold < folds or num_classes < folds:
        raise ValueError(f"fold {fold} of {folds} over {num_classes} classes does not exist")
    if scheme == "interleaved":
        return every[fold::folds]
    if scheme != "contiguous":
        raise ValueError(f"scheme {scheme!r}; allowed: contiguous, interleaved")
    return every[num_classes * fold // folds : num_classes * (fold + 1) // folds]


def base_classes(num_classes: int, fold: int, folds: int, scheme: str) -> list[int]:
    """Class ids to train on: all that `novel_classes` does not hold out."""
    novel = set(novel_classes(num_classes, fold, folds, scheme))
    return [c for c in range(1, num_classes + 1) if c not in novel]


def split_base(base: Sequence[int], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Base classes to learn from, and `count` others at random to validate on.

    Raises:
        ValueError: none would be left to learn from.
    """
    if count >= len(base):
        raise ValueError(
            f"validation_classes={count} of {len(base)} base classes; allowed: 0..{len(base) - 1}"
        )
    chosen = set(np.random.default_rng(seed).permutation(base)[:count].tolist())
    return [c for c in base if c not in chosen], sorted(chosen)
