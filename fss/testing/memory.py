"""How much memory features may take: a share of what the machine has free."""

import os
from pathlib import Path

SHARE = 0.5  # share of what is free; the rest is for images in work, and for other programs
_FALLBACK = 4 * 2**30  # bytes that are taken for free if the system does not tell


def budget(gib: float | None) -> float:
    """Bytes for features that are kept: `gib`, or a share of the RAM that is free now.

    Processes of one run on one machine share it: torchrun tells how many they are.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return gib * 2**30 if gib is not None else SHARE * free_ram() / processes


def free_ram() -> float:
    """Bytes of RAM that can still be had, by the system and by the limit of a container."""
    return min(_system(), _container())


def _system() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024 * float(kib)
    except (OSError, StopIteration, ValueError, IndexError):  # not Linux
        return _FALLBACK


# Files of a group's limit and use, and how its droppable files are called in memory.stat: cgroup v2, then v1.
_FILES = {"": ("memory.max", "memory.current", "file"),
          "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")}  # fmt: skip


def _container(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """What cgroups leave, this process's own group and those above it; infinite where none sets a limit."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="ascii").splitlines()]
        groups = {line[1]: line[2].strip("/") for line in lines if len(line) == 3}
    except (OSError, ValueError):
        groups = {}
    left = [float("inf")]
    for controller, files in _FILES.items():
        top = root / controller
        folder = top / groups.get(controller, "")
        left += [_left(each, *files) for each in (folder, *folder.parents) if each.is_relative_to(top)]
    return min(left)


def _left(folder: Path, limit: str, usage: str, droppable: str) -> float:
    """What one group leaves: its limit less what is used, without files that the system could drop."""
    try:
        most, used = (float((folder / name).read_text()) for name in (limit, usage))
        stat = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = next((float(words[1]) for words in stat if words[:1] == [droppable]), 0.0)
        return max(most - used + cached, 0.0)
    except (OSError, ValueError, IndexError):  # "max" is no number: there is no limit
        return float("inf")
