"""Median times, for studies."""

import time
from collections.abc import Callable
from statistics import median


def median_seconds(call: Callable[[], object], calls: int = 3) -> float:
    """Median time of so many calls."""
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return median(took)
