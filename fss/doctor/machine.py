"""What this machine computes with."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fss
from fss.doctor.item import Item, guarded, shown

SECTION = "machine"
NEWEST = (3, 13)  # that is tested
SHARED = Path("/dev/shm")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of computing per period, and the period
LEAST_SHARED = 256 * 2**20  # bytes; a loader's worker hands over batches of some MB each


def machine() -> list[Item]:
    """Python, cores and threads, devices, number formats."""
    checks = {"python": _python, "threads": _threads, "GPU": _devices, "shared memory": _shared}
    return [item for name, check in checks.items() for item in guarded(SECTION, name, check)]


def _python() -> Iterator[Item]:
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "without a virtual environment"
    detail = f"{platform.python_version()} {where}; {platform.platform()}"
    if sys.version_info[:2] > NEWEST:
        text = f"{detail}; newer than any that was tested (3.10 to {'.'.join(map(str, NEWEST))})"
        yield Item(SECTION, "python", "warning", text)
    else:
        yield Item(SECTION, "python", "ok", detail)
    yield Item(SECTION, "fss", "ok", f"{fss.__version__} in {shown(Path(fss.__file__).parent)}")


def cores() -> int:
    """How many cores this process may use: those it may run on, less where its container grants fewer."""
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
    told = os.environ.get("OMP_NUM_THREADS")
    detail = f"{threads} for {usable} usable core{'s' * (usable > 1)}"
    detail += f" (OMP_NUM_THREADS={told})" if told else ""
    if threads > usable:
        fix = f"export OMP_NUM_THREADS={usable}"
        yield Item(SECTION, "threads", "warning", f"{detail}: they wait for each other", fix)
    elif 2 * threads < usable:
        text = f"{detail}: most cores have nothing to do"
        yield Item(SECTION, "threads", "warning", text, f"export OMP_NUM_THREADS={usable}")
    else:
        yield Item(SECTION, "threads", "ok", detail)


def _devices() -> Iterator[Item]:
    import torch

    if torch.cuda.is_available():
        for n in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(n)
            text = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Item(SECTION, f"GPU {n}", "ok", text)
    elif shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        text = f"PyTorch ({built}) sees none, though NVIDIA's tools are installed"
        fix = "look at `nvidia-smi`: the driver may be older than this PyTorch wants"
        yield Item(SECTION, "GPU", "warning", text, fix)
    else:
        yield Item(SECTION, "GPU", "optional", "none; everything runs on the CPU")
    yield _bfloat16("cuda" if torch.cuda.is_available() else "cpu")


def _bfloat16(device: str) -> Item:
    import torch

    from fss.runs.precision import wants_half

    if wants_half("auto", torch.device(device)):
        return Item(SECTION, "bfloat16", "ok", f"the {device} computes in it; precision=auto uses it")
    return Item(SECTION, "bfloat16", "optional", f"not on this {device}; precision=auto uses float32")


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
