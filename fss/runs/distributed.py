"""One process per device, started by torchrun. With one process every function here is a no-op."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fss.errors import UserError

T = TypeVar("T")


def start(device: str) -> torch.device:
    """Settle the device, and join the group of processes if torchrun started several.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: a device that is not there.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"device={device}: allowed are auto, cpu, cuda, cuda:N") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device={device}: this machine (or this PyTorch) has no CUDA; use device=cpu")
        chosen = torch.device("cuda", local if several else chosen.index or 0)
        if chosen.index >= torch.cuda.device_count():
            raise UserError(f"{chosen} does not exist; this machine has {torch.cuda.device_count()} GPU(s)")
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise UserError(f"device={device}: allowed are auto, cpu, cuda, cuda:N")
    if several and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def stop() -> None:
    """Leave the group of processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and talks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, in each."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def gather(value: Any) -> list[Any]:
    """`value` of every process, in each."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def agree(value: float, device: torch.device) -> float:
    """The main process's value, in each (a clock, say, that decides when to stop)."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def global_batch(batch: int, accumulate: int = 1) -> int:
    """`batch`, raised until every process has an equal share of each of its accumulated parts."""
    shares = world() * accumulate
    return -(-batch // shares) * shares


def my_shares(batch: Sequence[T], accumulate: int = 1) -> list[Sequence[T]]:
    """This process's shares of a global batch: one share for each accumulated part."""
    shares = world() * accumulate
    return [batch[part * world() + rank() :: shares] for part in range(accumulate)]


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with its gradients averaged over processes; norms' statistics too, on CUDA."""
    if world() == 1:
        return module
    if device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    # Gradients are summed in groups that are made anew after the first step, but not where parameters may go
    # unused. With three summands another group is another order, and a resumed run would differ in last bits.
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=world() > 2)
