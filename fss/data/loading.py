"""Datasets by key, and the loader that carries a user's mistake out of a worker unharmed.

A key holds all that decides an item, random numbers included; datasets have no state.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from fss.errors import UserError


class Loadable(Dataset):
    """A dataset whose `load` may raise `UserError` in a worker.

    DataLoader would wrap the error in a traceback of the worker's; here it travels as a value.
    """

    def __getitem__(self, key: Any) -> Any:
        """The item, or the error that stands for it."""
        try:
            return self.load(key)
        except UserError as error:
            return error

    def load(self, key: Any) -> Any:
        """Make the item for a key."""
        raise NotImplementedError


class _Collate:
    """Collates items, or passes on the first error among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        errors = [item for item in items if isinstance(item, UserError)]
        return errors[0] if errors else self.collate(items)


def _leave_quietly(worker: int) -> None:
    """Silence a loader process whose reader has gone: the main process reports the error."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, ConnectionError | EOFError):
            shown(kind, error, trace)

    sys.excepthook = hook


def load_batches(
    dataset: Loadable,
    batches: Iterable[Sequence[Any]],
    collate: Callable[[list[Any]], Any],
    workers: int | None,
) -> Iterator[Any]:
    """Yield the collated items of each batch of keys, in order.

    Args:
        workers: loader processes; None takes one a core, at most 4.

    Raises:
        UserError: as raised by the dataset, in the main process.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of key lists will do
        num_workers=min(4, os.cpu_count() or 1) if workers is None else workers,
        collate_fn=_Collate(collate),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_quietly,
        generator=torch.Generator().manual_seed(0),  # else a loader that starts draws from the global one
    )
    for batch in loader:
        if isinstance(batch, UserError):
            try:
                raise batch
            finally:  # an error whose traceback's frame holds it lives on, and with it the loader's processes
                del batch
        yield batch


@contextmanager
def loaders_watched() -> Iterator[None]:
    """Turn the death of a loader process, which PyTorch raises wherever the main process is, into words."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two: in handing over a tensor
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a loader process died ({type(error).__name__}: {str(error)[:120]}): out of memory, or killed. "
            "The last checkpoint is whole; go on with fewer of them (data.workers=1) or none (data.workers=0)"
        ) from None
