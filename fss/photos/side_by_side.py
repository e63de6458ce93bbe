"""Photos looked at side by side, each on a core of its own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """`work` of each item, in their order; on a CPU as many at once as PyTorch has threads, one thread each.

    A photo is too small to keep several cores busy by itself. On a GPU, and with one thread, items come one
    after another. An exception of `work` is raised in its item's place, and what has not begun is left out.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads < 2:
        yield from map(work, items)
        return
    left, ahead = iter(items), deque[Future[Result]]()
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
    try:
        # One item waits beside those at work, so that results in memory stay few.
        ahead.extend(pool.submit(work, item) for item in islice(left, threads + 1))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(work, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' number was that of all threads to come
