"""The verb that hands a model on: export."""

import argparse
from pathlib import Path

from fss.cli.common import Verb
from fss.errors import UserError

_MORE = """Inputs: query (1,3,PX,PX) and support_images (1,K,3,PX,PX), float32 RGB of 0..255,
and support_masks (1,K,PX,PX), uint8 of 0, 1 and 255 (ignored). Output: logits
(1,2,PX,PX), background first. Beside OUT lies OUT.json that says so again, and how
closely the file answers as the model does."""


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="trained here or converted")
    add("out", type=Path, metavar="OUT", help="the file to write, .onnx or .pt2")
    add("settings", nargs="*", metavar="head.key=value", help="with --head: options of the head")
    text = "support images of an episode; fixed in the file"
    add("--shots", type=int, required=True, metavar="K", help=text)
    text = "CHECKPOINT is a base network: with this head, which has nothing to learn, such as prototype"
    add("--head", metavar="NAME", help=text)
    text = "of images; fixed in the file (default: what it was trained at)"
    add("--size", type=int, metavar="PX", help=text)
    text = "onnx, or torch for a program of torch.export (default: by the suffix of OUT)"
    add("--format", choices=("onnx", "torch"), dest="kind", help=text)
    add("--seed", type=int, default=0, metavar="N", help="of what is random in the head (default: 0)")


def _export(options: argparse.Namespace, arguments: list[str]) -> None:
    o = options
    stray = [text for text in o.settings if not text.startswith("head.") or "=" not in text or not o.head]
    if stray:
        raise UserError(f"{stray[0]!r} is no option of a head (head.key=value, with --head)")

    from fss.exchange.export import run_export
    from fss.recipes import load_config

    head = load_config("shapes", "cwt", [f"head.type={o.head}", *o.settings]).head if o.head else None
    run_export(o.checkpoint, o.out, o.shots, o.size, o.kind, o.seed, head)


VERBS = {
    "export": Verb(
        "a trained model as one file for ONNX Runtime, or for PyTorch without fss", _options, _export,
        ("fss export results/shapes/fold0/cwt_resnet50_random_1shot/best.pt cwt.onnx --shots 1",
         "fss export best.pt asgnet.pt2 --shots 5 --size 473",
         "fss export base.pt prototype.onnx --shots 1 --head prototype"), _MORE,
    ),
}  # fmt: skip
