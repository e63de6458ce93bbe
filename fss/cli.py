"""The command line: parse, build, call. No logic."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import fss
from fss.errors import UserError

_EXAMPLES = """examples:
  fss train --data shapes --fold 0 --layers 50 --shots 1
  fss test --data pascal --fold 0 --shots 5 --head cwt --visualize
  fss pretrain --data folder data.root=my_photos data.size=321

settings: any key of the configuration as section.key=value, such as test.episodes=200 (values in YAML)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if it worked, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options, settings = _parser().parse_known_intermixed_args(arguments)
    try:
        unknown = [s for s in settings if s.startswith("-")]
        if unknown:
            raise UserError(f"unknown option {unknown[0]}; see `fss {options.verb} --help`")
        return _run(options, settings, arguments)
    except (UserError, OSError) as error:  # OSError: no permission, no space
        print(f"fss: error: {error}".replace("\n", "\n  "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfss: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fss",
        description=fss.__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "verb",
        choices=("pretrain", "train", "test"),
        help="stage 1; stage 1 where needed, stage 2 and a test; a test",
    )
    parser.add_argument(
        "--data",
        default="shapes",
        metavar="NAME",
        help="configs/data/NAME.yaml, or a YAML file (default: shapes)",
    )
    parser.add_argument(
        "--head", default="cwt", metavar="NAME", help="configs/head/NAME.yaml, or a YAML file (default: cwt)"
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="NAME",
        help="a further recipe, configs/NAME.yaml or a YAML file",
    )
    parser.add_argument("--fold", metavar="N", help="the fold whose classes are held out")
    parser.add_argument("--layers", metavar="N", help="of the ResNet: 18, 34, 50, 101")
    parser.add_argument("--shots", metavar="K", help="support images per episode")
    parser.add_argument(
        "--gpus", metavar="LIST", help="[0], 0, [0,1], 0,1 or cpu; several start one process each"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="test this one (default: what training left)"
    )
    parser.add_argument(
        "--visualize", action="store_true", help="one picture per tested episode, and a contact sheet"
    )
    parser.add_argument("--version", action="version", version=f"fss {fss.__version__}")
    return parser


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


def _choose_gpus(options: argparse.Namespace, arguments: list[str]) -> str | None:
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


def _run(options: argparse.Namespace, settings: list[str], arguments: list[str]) -> int:
    from fss.config import load_config

    named = {"data.fold": options.fold, "backbone.layers": options.layers}
    named |= {f"{section}.shots": options.shots for section in ("train", "test")}
    overrides = [f"{key}={value}" for key, value in named.items() if value is not None]
    config = load_config(options.data, options.head, [*overrides, *settings], options.config)
    device_name = _choose_gpus(options, arguments) or config.device

    from fss.engine import distributed, verbs

    device = distributed.start(device_name)
    try:
        verbs.VERBS[options.verb](config, device, options.checkpoint, options.visualize)
    finally:
        distributed.stop()
    return 0
