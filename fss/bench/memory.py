"""How much memory one call takes, above what lies there before it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(call: Callable[[], object], device: torch.device) -> float:
    """GiB that a call needs at its highest: of the GPU's memory, or resident; nan where no one counts it.

    Resident memory is Linux' own count of this process, whose peak is set back before the call.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**30
    try:
        # Memory that was freed and is still resident would hide what is asked for.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _RESET.write_text("5")
        before = _resident("VmRSS")
    except OSError:
        call()
        return float("nan")
    call()
    return (_resident("VmHWM") - before) / 2**30


def _resident(name: str) -> int:
    """Bytes of a line of the process's status."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
