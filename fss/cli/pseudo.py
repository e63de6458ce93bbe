"""The verb that makes masks from image-level labels: pseudo-label."""

import argparse

from fss.cli.common import LAYERS, Verb, choose_gpus, run_options, settings_and_paths, what_options
from fss.errors import UserError

_WORDS = ("train", "write")


def _options(parser: argparse.ArgumentParser) -> None:
    text = "learn, then write; or write alone; and settings"
    parser.add_argument("words", nargs="+", metavar="train|write", help=text)
    what_options(parser).add_argument("--layers", metavar="N", help=LAYERS)
    run_options(parser)


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
    from fss.l2g.run import run_pseudo_label
    from fss.runs import distributed

    device = distributed.start(device_name)
    try:
        with loaders_watched():
            run_pseudo_label(str(words[0]), config, device)
    finally:
        distributed.stop()


VERBS = {
    "pseudo-label": Verb(
        "make masks from image-level labels (L2G): train its networks, write", _options, _run,
        ("fss pseudo-label train --data shapes --config shapes_pseudo",
         "fss pseudo-label train --data pascal --fold 0 pseudo.saliency=saliency",
         "fss pseudo-label write --data pascal --fold 0 pseudo.saliency=saliency \\\n"
         "      pseudo.background=0.3 data.train_masks=masks_03",
         "fss train --data pascal --fold 0 data.train_masks=pseudo"),
    ),
}  # fmt: skip
