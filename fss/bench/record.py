"""Records of `fss bench`: files of times, and ratios measured again and compared with them."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch

from fss.bench.cases import Setting
from fss.errors import UserError
from fss.reading import read_json
from fss.runs.folders import environment
from fss.writing import write_text

Times = dict[str, dict[str, float]]  # case -> way -> median seconds, and GiB
FALL = 0.15  # of a ratio, beyond which it counts as fallen
_AGAIN = 2  # times that a fallen case is measured again, in case other work disturbed it


class Record(NamedTuple):
    """A file of `write`: size and network of its cases, the machine in words, and the ratio of each case."""

    size: int | None
    backbone: str
    half: bool
    machine: str
    ratios: dict[str, float]


def write(path: Path, found: Times, setting: Setting, runs: int) -> None:
    """Write a record, whole or not at all."""
    content = {
        "date": date.today().isoformat(), "size": setting.size, "backbone": setting.backbone,
        "half": setting.half, "threads": torch.get_num_threads(), "torch": torch.__version__, "runs": runs,
        "cases": found, "environment": environment(setting.device),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1) + "\n")


def read(path: Path) -> Record:
    """A record.

    Raises:
        UserError: the file is none.
    """
    content = read_json(path, "a record of `fss bench --out`")
    try:
        about = content["environment"]
        both = {str(name): case for name, case in content["cases"].items() if "plain" in case}
        ratios = {name: case["plain"] / case["ours"] for name, case in both.items()}
        if not ratios:
            raise KeyError("plain")
        return Record(content["size"], content["backbone"], content["half"], _machine(about), ratios)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise UserError(f"{path} is no record of times; `fss bench --out {path}` writes one") from None


def _machine(about: Mapping[str, object]) -> str:
    return f"{about['device']}, {about['threads']} threads, PyTorch {about['torch']}"


def check(record: Record, measure: Callable[[list[str]], Times], setting: Setting) -> bool:
    """Measure a record's cases, print each ratio beside the recorded one, and name those that fell.

    A case that fell by more than `FALL` is measured again, twice at most; its best ratio counts.

    Args:
        measure: names of cases -> their times.

    Returns:
        Whether none fell.
    """
    here = _machine(environment(setting.device))
    if here != record.machine:
        print(f"recorded on {record.machine}; here {here}: ratios of machines differ by themselves")
    now = {name: 0.0 for name in record.ratios}
    for _ in range(1 + _AGAIN):
        if names := fallen(record.ratios, now):
            now |= {n: max(now[n], t["plain"] / t["ours"]) for n, t in measure(names).items()}
    print("| case | recorded | now | change |\n|---|---|---|---|")
    for name, ratio in record.ratios.items():
        print(f"| {name} | {ratio:.1f} | {now[name]:.1f} | {now[name] / ratio - 1:+.0%} |".replace("-", "−"))
    names = fallen(record.ratios, now)
    falls = ", ".join(f"{name} from {record.ratios[name]:.1f} to {now[name]:.1f}" for name in names)
    print(f"\nfell by more than {FALL:.0%}: {falls}" if names else f"\nno ratio fell by more than {FALL:.0%}")
    return not names


def fallen(recorded: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Names of cases whose ratio is less than 1 - `FALL` of the recorded one."""
    return [name for name, ratio in recorded.items() if now[name] < (1 - FALL) * ratio]
