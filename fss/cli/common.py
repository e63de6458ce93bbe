"""Parts that the verbs' command lines share: options, paths beside settings, GPUs."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fss.errors import UserError

SETTINGS = """settings: any key of the configuration as section.key=value, such as
test.episodes=200; a wrong key is answered with those that there are."""
LAYERS = "the backbone: 18, 34, 50 or 101 of a ResNet, or a name (default: 50)"
GPUS = "[0], 0, [0,1], 0,1 or cpu; several start one process each (default: a GPU where there is one)"
GPU = "[0], 0 or cpu (default: a GPU where there is one)"
Options = argparse._ArgumentGroup


class Verb(NamedTuple):
    """A verb: its work in a line, its options, its function, and examples."""

    help: str
    options: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace, list[str]], None]
    examples: tuple[str, ...]
    more: str = SETTINGS


def what_options(parser: argparse.ArgumentParser, data: str | None = "shapes") -> Options:
    """Options that name what is run, as a group of their own; `data` is the set where none is named."""
    group = parser.add_argument_group("what is run")
    add = group.add_argument
    text = "data set: configs/data/NAME.yaml, or a YAML file" + (f" (default: {data})" if data else "")
    add("--data", default=data, metavar="NAME", help=text)
    add("--fold", metavar="N", help="the fold whose classes are held out (default: 0)")
    add("--shots", metavar="K", help="support images per episode (default: 1)")
    config_option(group)
    return group


def config_option(group: Options) -> None:
    text = "a further recipe, configs/NAME.yaml or a YAML file; may be given several times"
    group.add_argument("--config", action="append", default=[], metavar="NAME", help=text)


def run_options(parser: argparse.ArgumentParser, gpus: str = GPUS) -> Options:
    """Options that say where and how it is run, as a group of their own."""
    group = parser.add_argument_group("where it runs")
    group.add_argument("--gpus", metavar="LIST" if gpus is GPUS else "N", help=gpus)
    return group


def settings_and_paths(texts: Sequence[str]) -> tuple[list[str], list[Path]]:
    is_setting = lambda text: re.match(r"[a-z_]+(\.\w+)*=", text) and not Path(text).exists()  # noqa: E731
    settings = [text for text in texts if is_setting(text)]
    return settings, [Path(text) for text in texts if text not in settings]


def parse_point(text: str) -> tuple[int, int, int]:
    """X,Y,LABEL; `UserError` where it is none."""
    try:
        x, y, label = map(int, text.split(","))
    except ValueError:
        raise UserError(f"point {text!r}: wanted X,Y,LABEL, such as 120,80,1") from None
    return x, y, label


def parse_box(text: str) -> tuple[int, int, int, int]:
    """X0,Y0,X1,Y1; `UserError` where it is none."""
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError:
        raise UserError(f"box {text!r}: wanted X0,Y0,X1,Y1, such as 30,40,200,180") from None
    return x0, y0, x1, y1


def parse_gpus(text: str) -> list[int] | None:
    """GPU numbers from `[0,1]`, `0,1`, `[0]` or `0`; None for `cpu`.

    Raises:
        UserError: anything else.
    """
    bare = text.strip().strip("[]").replace(" ", "")
    if bare == "cpu":
        return None
    if not re.fullmatch(r"\d+(,\d+)*", bare):
        raise UserError(f"GPUs {text!r}: allowed are [0], [0,1], 0, 0,1 or cpu")
    numbers = [int(n) for n in bare.split(",")]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"GPUs {text!r}: each number once")
    return numbers


def choose_gpus(options: argparse.Namespace, arguments: list[str]) -> str | None:
    """The device that `--gpus` names; None where it names none. Several GPUs: become torchrun."""
    if options.gpus is None:
        return None
    gpus = parse_gpus(options.gpus)
    if gpus is None:
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        print(f"no CUDA here: GPUs {options.gpus} are not used, running on the CPU", flush=True)
        return "cpu"
    absent = [n for n in gpus if n >= count]
    if absent:
        raise UserError(f"GPU {absent[0]} does not exist; this machine shows {count}, numbered from 0")
    if len(gpus) == 1:
        return f"cuda:{gpus[0]}"
    if "LOCAL_RANK" not in os.environ:
        _become_torchrun(gpus, arguments)
    return "cuda"


def _become_torchrun(gpus: list[int], arguments: list[str]) -> None:
    """Start one process per GPU in this one's place; numbers are those of the GPUs shown to it."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(n) for n in range(max(gpus) + 1)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[n] for n in gpus)
    processes = f"--nproc_per_node={len(gpus)}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", processes, "-m", "fss"]
    os.execv(sys.executable, [*torchrun, *arguments])
