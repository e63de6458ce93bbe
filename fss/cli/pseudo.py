"""The verb that makes masks from image-level labels: pseudo-label."""

import argparse

from fss.cli.common import Verb, choose_gpus, settings_and_paths, what_options
from fss.errors import UserError

_WORDS = ("train", "write")


def _options(parser: argparse.ArgumentParser) -> None:
    what_options(parser)
    add = parser.add_argument
    add("words", nargs="+", metavar="train|write", help="learn, then write; or write alone; and settings")
    add("--layers", metavar="N", help="of the ResNets: 18, 34, 50, 101")
    add("--gpus", metavar="LIST", help="[0], 0, [0,1], 0,1 or cpu; several start one process each")


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, words = settings_and_paths(options.words)
    if [str(w) for w in words] not in [[w] for w in _WORDS]:
        got = " ".join(map(str, words)) or "nothing"
        raise UserError(f"pseudo-label takes train or write, got {got}; settings are key=value")
    from fss.recipes import load_config

    named = {"data.fold": options.fold, "backbone.layers": options.layers, "train.shots": options.shots}
    settings = [*(f"{key}={value}" for key, value in named.items() if value is not None), *settings]
    config = load_config(options.data, "cwt", settings, options.config)
    device_name = choose_gpus(options, arguments) or config.device

    from fss.data.loading import loaders_watched
    from fss.engine import distributed, pseudo_verbs

    device = distributed.start(device_name)
    try:
        with loaders_watched():
            pseudo_verbs.run_pseudo_label(str(words[0]), config, device)
    finally:
        distributed.stop()


VERBS = {
    "pseudo-label": Verb(
        "masks from image-level labels (L2G): train its networks, write pseudo-masks", _options, _run,
        ("fss pseudo-label train --data shapes --config shapes_pseudo",
         "fss pseudo-label train --data pascal --fold 0 pseudo.saliency=saliency pseudo.labels=labels.txt",
         "fss pseudo-label write --data pascal --fold 0 pseudo.background=0.3 data.train_masks=masks_03",
         "fss train --data pascal --fold 0 data.train_masks=pseudo"),
    ),
}  # fmt: skip
