"""The verb that opens a page in the browser: demo."""

import argparse
from pathlib import Path

from fss.cli.common import GPU, Verb, choose_gpus, parse_gpus, run_options, settings_and_paths
from fss.errors import UserError

_MORE = """The page is served to this machine alone (127.0.0.1), and asks nothing of any
other. From elsewhere: `ssh -L 7860:127.0.0.1:7860 MACHINE`, then open
http://127.0.0.1:7860 at home. Settings are those of `fss predict`:
backbone.weights, backbone.type, data.size, precision ..."""


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any that is free")
    add("--checkpoint", type=Path, metavar="FILE", help="a trained or converted model to start with")
    text = "results whose checkpoints the page offers (default: results)"
    add("--output", type=Path, default=Path("results"), metavar="DIR", help=text)
    add("--no-browser", action="store_true", help="print the address, open nothing")
    run_options(parser, GPU)
    add("settings", nargs="*", metavar="key=value", help="settings, such as backbone.type=resnet101")


def _demo(options: argparse.Namespace, arguments: list[str]) -> None:
    settings, words = settings_and_paths(options.settings)
    if words:
        raise UserError(f"{words[0]} is not key=value; photos are dropped into the page")
    if options.gpus is not None and len(parse_gpus(options.gpus) or []) > 1:
        raise UserError(f"--gpus {options.gpus}: the page uses one; allowed: [0], 0 or cpu")
    device = choose_gpus(options, arguments)
    settings += [f"device={device}"] if device else []

    from fss.demo.serve import run_demo

    run_demo(options.checkpoint, options.output, options.port, settings, not options.no_browser)


VERBS = {
    "demo": Verb(
        "a page in the browser: mark a thing in one photo, find it in others", _options, _demo,
        ("fss demo",
         "fss demo --checkpoint results/shapes/fold0/cwt_resnet50_random_1shot/best.pt --port 8000",
         "fss demo backbone.type=resnet101 --gpus 0"), _MORE,
    ),
}  # fmt: skip
