"""Checks of the machine."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fss
from fss.doctor.item import Item, guarded, shown

SECTION = "machine"
SHARED = Path("/dev/shm")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of computing per period, and the period
LEAST_SHARED = 256 * 2**20  # bytes; a loader's worker hands over batches of some MB each


def machine() -> list[Item]:
    """Items on Python, threads, devices and shared memory."""
    checks = {"python": _python, "threads": _threads, "GPU": _devices, "shared memory": _shared}
    return [item for name, check in checks.items() for item in guarded(SECTION, name, check)]


def _python() -> Iterator[Item]:
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "without a virtual environment"
    yield Item(SECTION, "python", "ok", f"{platform.python_version()} {where}; {platform.platform()}")
    yield Item(SECTION, "fss", "ok", f"{fss.__version__} in {shown(Path(fss.__file__).parent)}")


def cores() -> int:
    """How many cores this process may use: those it may run on, less if its container grants fewer."""
    may = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    there = len(may(0)) if may else os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # no container, or no limit ("max 100000")
        return there
    return max(1, min(there, -(-quota // period)))


def _threads() -> Iterator[Item]:
    import torch

    usable, threads = cores(), torch.get_num_threads()
    detail = f"{threads} for {usable} usable core{'s' * (usable > 1)}"
    if threads > usable:
        fix = f"export OMP_NUM_THREADS={usable}"
        yield Item(SECTION, "threads", "warning", f"{detail}: they wait for each other", fix)
    else:
        yield Item(SECTION, "threads", "ok", detail)


def _devices() -> Iterator[Item]:
    import torch

    from fss.runs.precision import wants_half

    there = torch.cuda.is_available()
    for n in range(torch.cuda.device_count() if there else 0):
        facts = torch.cuda.get_device_properties(n)
        text = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        yield Item(SECTION, f"GPU {n}", "ok", text)
    if not there and shutil.which("nvidia-smi"):
        text = f"PyTorch (CUDA {torch.version.cuda}) sees none, though NVIDIA's tools are installed"
        fix = "look at `nvidia-smi`: the driver may be older than this PyTorch wants"
        yield Item(SECTION, "GPU", "warning", text, fix)
    elif not there:
        yield Item(SECTION, "GPU", "optional", "none; everything runs on the CPU")
    half = wants_half("auto", torch.device("cuda" if there else "cpu"))
    yield Item(SECTION, "precision", "ok", f"auto is {'bfloat16' if half else 'float32'} here")


def _shared() -> Iterator[Item]:
    if not SHARED.is_dir():  # not Linux
        return
    size = shutil.disk_usage(SHARED).total
    text = f"{size / 2**30:.2f} GiB at {SHARED}"
    if size < LEAST_SHARED:
        fix = "data.workers=0, or a container started with more (--shm-size=2g)"
        yield Item(SECTION, "shared memory", "warning", f"{text}: too little for a loader's workers", fix)
    else:
        yield Item(SECTION, "shared memory", "ok", text)
