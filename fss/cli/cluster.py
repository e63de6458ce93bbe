"""The verb that turns scribbles into masks: cluster."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fss.cli.common import GPU, Verb, choose_gpus, parse_point, run_options
from fss.errors import UserError

if TYPE_CHECKING:
    from fss.scribbles.clustering import Clustering

_OPTIONS = {
    "channels": (int, "Q", "channels of every map, so the most labels there can be"),
    "blocks": (int, "M", "3x3 convolutions"),
    "lr": (float, "X", "learning rate"),
    "momentum": (float, "X", "of the optimiser"),
    "steps": (int, "N", "most updates"),
    "similarity": (float, "X", "weight of the similarity loss"),
    "continuity": (float, "X", "weight of the continuity loss"),
    "scribble_weight": (float, "X", "weight of the scribble loss"),
    "min_labels": (int, "N", "stop when no more labels are left (default: 3, or the scribbles' number)"),
    "size": (int, "PX", "longest side that is worked at; the result has the image's own"),
    "settled": (float, "SHARE", "stop when fewer pixels than this change in ten steps in a row; 0: never"),
}

_MORE = """A scribble is a PNG as large as the image with 255 where nothing is drawn, 0 on
background and labels from 1 on. Written per image: NAME_labels.png (pixels are
labels), NAME_mask1.png ... (white on black), NAME_cluster.jpg (to look at) and
NAME_cluster.json (settings, steps, seconds)."""


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="an image, or a folder of them")
    add("out", type=Path, metavar="OUT", help="the folder for the results")
    add("--scribble", type=Path, metavar="PNG", help="what was drawn on the image")
    text = "clicks, pixels from the top left and a label: 120,80,1 10,10,0"
    add("--points", nargs="+", default=[], metavar="X,Y,LABEL", help=text)
    text = "train one network on these images first, and keep it as OUT/weights.pt"
    add("--reference", type=Path, metavar="DIR", help=text)
    add("--weights", type=Path, metavar="FILE", help="apply a network that --reference kept")
    text = "the paper's settings: full size, no stop but by number of labels; minutes in place of seconds"
    add("--published", action="store_true", help=text)
    add("--watch", type=int, default=0, metavar="N", help="a picture of the labels every N steps")
    own = parser.add_argument_group("how it clusters")
    for name, (kind, metavar, text) in _OPTIONS.items():
        own.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    text = "of the network's start (default: 0)"
    own.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    add = run_options(parser, GPU).add_argument
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the network")


def _settings(options: argparse.Namespace) -> "Clustering":
    from dataclasses import replace

    from fss.scribbles.clustering import PUBLISHED, Clustering

    given = {k: v for k in _OPTIONS if (v := getattr(options, k)) is not None}
    if "scribble_weight" in given:
        given["scribble"] = given.pop("scribble_weight")
    return replace(PUBLISHED if options.published else Clustering(), **given)


def _cluster(options: argparse.Namespace, arguments: list[str]) -> None:
    points = [parse_point(text) for text in options.points]
    if not 0 <= options.seed < 2**31:
        raise UserError(f"--seed {options.seed}; allowed: 0 to {2**31 - 1}")
    device_name = choose_gpus(options, arguments) or "auto"

    from fss.runs import distributed
    from fss.runs.memory import keep_freed_memory
    from fss.runs.precision import wants_half
    from fss.scribbles.cluster import Job, run_cluster

    settings, device = _settings(options), distributed.start(device_name)
    keep_freed_memory()  # this process does nothing else
    run_cluster(
        Job(
            options.image, options.out, settings, options.seed, options.scribble, points, options.reference,
            options.weights, options.watch, device, wants_half(options.precision, device),
        )
    )  # fmt: skip


VERBS = {
    "cluster": Verb(
        "segment single images without training data, best from a few scribbles", _options, _cluster,
        ("fss cluster photo.jpg out --scribble photo_scribble.png",
         "fss cluster photo.jpg out --points 120,80,1 130,95,1 10,10,0",
         "fss cluster photos out --reference a_few_photos",
         "fss cluster photo.jpg out --scribble scribble.png --published --watch 50"), _MORE,
    ),
}  # fmt: skip
