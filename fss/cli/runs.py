"""Verbs that learn and test: train, test, pretrain, run-folds."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fss.cli.common import LAYERS, Options, Verb, choose_gpus, run_options, what_options
from fss.errors import UserError

if TYPE_CHECKING:
    from fss.config import Config


def _pretrain_options(parser: argparse.ArgumentParser) -> None:
    text = "settings of the configuration"
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help=text)
    add = what_options(parser).add_argument
    text = "method: configs/head/NAME.yaml, or a YAML file (default: cwt)"
    add("--head", default="cwt", metavar="NAME", help=text)
    add("--layers", metavar="N", help=LAYERS)
    run_options(parser)
    parser.set_defaults(checkpoint=None, visualize=False, explain=False)


def _train_options(parser: argparse.ArgumentParser) -> Options:
    _pretrain_options(parser)
    group = parser.add_argument_group("what is tested, and drawn")
    add = group.add_argument
    add("--visualize", action="store_true", help="one picture per tested episode, and a contact sheet")
    add("--explain", action="store_true", help="pictures of how the head comes to its answer, too")
    return group


def _test_options(parser: argparse.ArgumentParser) -> None:
    text = "test this one (default: what training left)"
    _train_options(parser).add_argument("--checkpoint", type=Path, metavar="FILE", help=text)


def _config(options: argparse.Namespace, *more: str) -> "Config":
    from fss.recipes import load_config

    named = {"data.fold": options.fold, "backbone.layers": options.layers}
    named |= {f"{section}.shots": options.shots for section in ("train", "test")}
    overrides = [f"{key}={value}" for key, value in named.items() if value is not None]
    return load_config(options.data, options.head, [*overrides, *options.settings, *more], options.config)


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    config = _config(options)
    if options.verb == "run-folds" and (options.fold is not None or config.data.fold != 0):
        raise UserError("run-folds runs every fold; leave out --fold and data.fold")
    device_name = choose_gpus(options, arguments) or config.device

    from fss.data.loading import loaders_watched
    from fss.runs import distributed
    from fss.training import pipeline

    device = distributed.start(device_name)
    try:
        pictures = pipeline.Pictures(options.visualize, options.explain)
        with loaders_watched():
            if options.verb == "run-folds":
                folds = range(config.data.folds)
                pipeline.run_folds([_config(options, f"data.fold={f}") for f in folds], device, pictures)
            else:
                pipeline.VERBS[options.verb](config, device, options.checkpoint, pictures)
    finally:
        distributed.stop()


VERBS = {
    "train": Verb(
        "train base network and head, as far as they are missing, and test", _train_options, _run,
        ("fss train --data shapes --fold 0 --layers 50 --shots 1",
         "fss train --data pascal --fold 0 --head asgnet --gpus 0,1"),
    ),
    "test": Verb(
        "test a head on the classes held out", _test_options, _run,
        ("fss test --data pascal --fold 0 --shots 5 --head cwt --visualize",
         "fss test --data shapes --head asgnet --visualize --explain"),
    ),
    "pretrain": Verb(
        "train the base network alone, which segments the base classes", _pretrain_options, _run,
        ("fss pretrain --data folder data.root=my_photos data.size=321",),
    ),
    "run-folds": Verb(
        "train and test every fold, and put their table together", _train_options, _run,
        ("fss run-folds --data pascal --head cwt --layers 50 --shots 1",),
    ),
}  # fmt: skip
