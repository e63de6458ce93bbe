"""`fss prepare`: archives, or annotations of a user's own, into masks and lists."""

import sys
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from fss.data.prepare.coco import prepare_coco
from fss.data.prepare.common import Prepared
from fss.data.prepare.folder import prepare_folder
from fss.data.prepare.fss1000 import prepare_fss1000
from fss.data.prepare.pascal import prepare_pascal
from fss.errors import UserError

_PREPARE: dict[str, Callable[..., Prepared]] = {
    "pascal": prepare_pascal,
    "coco": prepare_coco,
    "fss1000": prepare_fss1000,
    "folder": prepare_folder,
}


def run_prepare(name: str, given: Mapping[str, Any]) -> None:
    """A benchmark's archives, or a user's own annotations, into masks and lists.

    Args:
        given: arguments of the preparation, those left out being None or False.
    """
    if name not in _PREPARE:
        raise UserError(f"cannot prepare {name!r}; allowed: {', '.join(_PREPARE)}")
    takes = signature(_PREPARE[name]).parameters
    given = {k: v for k, v in given.items() if v is not None and v is not False}
    if "lists" in takes:
        given.setdefault("lists", Path("lists") / name)
    unknown = sorted(given.keys() - takes.keys())
    needed = [k for k, p in takes.items() if p.default is p.empty and k not in given]
    if unknown or needed:
        raise UserError(
            f"prepare {name}: "
            + "; ".join(
                [f"{_option(k)} is not for this" for k in unknown]
                + [f"say {_option(k)}, too" for k in needed]
            )
        )
    done = _PREPARE[name](**given)
    counts = ", ".join(f"{file} {count} images" for file, count in done.lists.items())
    for line in done.notes:
        print(line)
    for line in done.left_out:
        print(f"fss: warning: left out: {line}", file=sys.stderr)
    print(f"{done.made} masks made, {done.kept} kept; lists: {counts}")
    print(f"use it with data.root={done.root}; read it all with: fss check-data {name} data.root={done.root}")
    if done.problems:
        raise UserError(
            "\n".join([f"{len(done.problems)} problems; what they name is left out:", *done.problems])
        )


def _option(name: str) -> str:
    return "--" + name.replace("source", "from").replace("_", "-")
