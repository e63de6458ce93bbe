"""How much memory features may take: a share of what the machine has free."""

from pathlib import Path

SHARE = 0.5  # of what is free; the rest is for images in work, and for others
_FALLBACK = 4 * 2**30  # bytes, where the system does not tell


def budget(gib: float | None) -> float:
    """Bytes for features that are kept: `gib`, or a share of the RAM that is free now."""
    return gib * 2**30 if gib is not None else SHARE * free_ram()


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


def _container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What cgroup v2 leaves; infinite where it sets no limit."""
    try:
        most, used = (float((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = [line.split()[1] for line in (folder / "memory.stat").read_text().splitlines()
                  if line.startswith("file ")]  # fmt: skip
        return max(most - used + float(cached[0] if cached else 0), 0.0)
    except (OSError, ValueError):  # "max" is no number: there is no limit
        return float("inf")
