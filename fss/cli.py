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
        _choose_gpus(options, arguments)
        return _run(options, settings)
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


def _choose_gpus(options: argparse.Namespace, arguments: list[str]) -> None:
    """Show this process the GPUs that were named; with several, become torchrun with one process each."""
    if options.gpus is None or "LOCAL_RANK" in os.environ:
        return
    gpus = parse_gpus(options.gpus)
    if gpus is None:
        options.device = "cpu"
        return
    import torch

    if not torch.cuda.is_available():
        print(f"no CUDA here: GPUs {options.gpus} are not used, running on the CPU", flush=True)
        options.device = "cpu"
        return
    absent = [n for n in gpus if n >= torch.cuda.device_count()]
    if absent:
        raise UserError(f"GPU {absent[0]} does not exist; this machine has {torch.cuda.device_count()}")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    if len(gpus) > 1:
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={len(gpus)}",
            "-m",
            "fss",
            *arguments,
        ]
        os.execv(sys.executable, [sys.executable, *launch])


def _run(options: argparse.Namespace, settings: list[str]) -> int:
    from fss.config import load_config

    named = {"data.fold": options.fold, "backbone.layers": options.layers}
    named |= {f"{section}.shots": options.shots for section in ("train", "test")}
    named["device"] = getattr(options, "device", None)
    overrides = [f"{key}={value}" for key, value in named.items() if value is not None]
    config = load_config(options.data, options.head, [*overrides, *settings], options.config)

    from fss.engine import distributed, verbs

    device = distributed.start(config.device)
    try:
        verbs.VERBS[options.verb](config, device, checkpoint=options.checkpoint, visualize=options.visualize)
    finally:
        distributed.stop()
    return 0
