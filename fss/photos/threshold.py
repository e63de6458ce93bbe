"""The threshold of a class, chosen on its supports: each in turn is segmented by the others."""

from collections.abc import Sequence

import numpy as np

SHIFTS = np.arange(-3, 3.25, 0.25)  # log-odds that are tried as the border
MOST = 8  # supports that are left out, one after the other; more would say no more
_CAUTION = 0.03  # IoU that a border must gain for each squared log-odds of its distance from even odds


def curve(odds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """IoU (T,) at each border of `SHIFTS`.

    Args:
        odds: (h,w) log-odds that a left-out support was given.
        mask: (h,w) of 0, 1 and 255, what it shows.
    """
    known = mask != 255
    odds, truth = odds[known], mask[known] == 1
    found = odds > SHIFTS[:, None]  # (T,n)
    both, either = (found & truth).sum(1), (found | truth).sum(1)
    return both / np.maximum(either, 1)


def border(curves: Sequence[np.ndarray]) -> float:
    """The log-odds from which on a pixel shows the object: one at which every left-out support gains.

    A few supports say little, so that even odds stay unless each support speaks against them, the more
    clearly the further away the border is: argmax over t of min over supports (IoU(t) - IoU(0)) - c t^2.
    How often that helps and hurts is in docs/votes.md.
    """
    if not curves:
        return 0.0
    even = int(np.abs(SHIFTS).argmin())
    gains = np.stack(curves)
    gains = (gains - gains[:, [even]]).min(0) - _CAUTION * SHIFTS**2
    return float(SHIFTS[gains.argmax()])
