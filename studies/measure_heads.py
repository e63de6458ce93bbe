"""Heads against each other: `python studies/measure_heads.py SET [--heads A,B] [--folds 0,1] [key=value]`

SET is `shapes`, or `msrc` or `camvid`, whose photos lie in data/msrc and data/camvid-mini. Every head that
learns is trained on one-shot episodes for the same seconds, once for each of `--trainings`, and every head is
tested with one shot and with five, on the same episodes. On `shapes` all heads stand on one base network a
fold, from scratch; on photos on EfficientNet-Lite0 as its weights come, but for those that need a neck or
base classes' logits (CWT, BAM, HDMNet): they stand on what base training makes of those weights. The last
checkpoint counts, so that nothing is chosen on test classes; of votes_decoder the best on base classes that
its training left out. Each result goes to
docs/results/heads/SET_foldF_HEAD_Kshot.json, of training T > 0 to SET_foldF_HEAD_trainingT_Kshot.json; what
is there is skipped: a run that was stopped goes on. A head of one's own is named by its recipe's file; in the
end the rows of all that were named are shown, with their differences to every other head (docs/beat-it.md).
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import heads_tables
import torch

from fss.config import Config
from fss.recipes import load_config
from fss.runs.folders import base_folder
from fss.runs.models import learns
from fss.runs.precision import wants_half
from fss.testing.test import test
from fss.training.base import pretrain
from fss.training.heads import train

OUT = Path("docs/results/heads")
HEADS = (
    "cwt", "asgnet", "pfenet", "hsnet", "repri", "bam", "bam_meta", "hdmnet", "dcama", "prototype", "votes",
    "insid3", "votes_decoder",
)  # fmt: skip
# What is no head by itself: a head, and the settings that make the difference.
VARIANTS = {
    "bam_meta": ("bam", ("head.ensemble=false",)),
    "dcama_mean": ("dcama", ("head.shots=mean",)),
}
SHOTS = (1, 5)


class Set(NamedTuple):
    """A data set: its name for `--data`, seconds of training, further recipes, and settings, of all heads and
    of single ones."""

    data: str
    seconds: int
    extra: Sequence[str]
    settings: Sequence[str]
    of_head: dict[str, Sequence[str]]


# Its schedule counts epochs, which end within these seconds, and base classes say which checkpoint is best.
_DECODER = {"votes_decoder": ("train.seconds=null", "test.checkpoint=best")}
_ON_PHOTOS = {
    **_DECODER,
    **{head: ("network=base",) for head in ("cwt", "bam", "bam_meta", "hdmnet")},
    "repri": ("head.level=[stage3,stage4]",),
}
SETS = {
    "shapes": Set(
        "shapes", 90, (), ("backbone.type=resnet18", "pretrain.epochs=5"), _DECODER,
    ),
    "msrc": Set(
        "folder", 180, ("photos",),
        ("data.root=data/msrc", "backbone.type=efficientnet_lite0", "pretrain.epochs=4"),
        _ON_PHOTOS,
    ),
    "camvid": Set(
        "folder", 180, ("photos",),
        # Runs of both sets of photos would stand in folders of the same names.
        ("data.root=data/camvid-mini", "output=results/camvid", "backbone.type=efficientnet_lite0",
         "pretrain.epochs=4"),
        _ON_PHOTOS,
    ),
}  # fmt: skip


def config_of(name: str, head: str, fold: int, shots: int, own: Sequence[str]) -> Config:
    """The settings of one cell of the table; the head by name, or its recipe's file."""
    chosen, (part, variant) = SETS[name], VARIANTS.get(head, (head, ()))
    every = [
        f"data.fold={fold}", f"train.seconds={chosen.seconds}", f"test.shots={shots}", "test.checkpoint=last",
        "pretrain.seconds=null", "test.runs=3", "test.episodes=100", *chosen.settings,
        *chosen.of_head.get(head, ()), *variant, *own,
    ]  # fmt: skip
    return load_config(chosen.data, part, every, chosen.extra)


def measure(name: str, head: str, fold: int, training: int, own: Sequence[str], end: str = "") -> None:
    """Train one head on one fold, and test it with every number of shots.

    Args:
        training: 0, or the number of another training on the same network.
        own: further settings.
        end: of the head's name in the results' files.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    end += f"_training{training}" if training else ""
    for shots in SHOTS:
        out = OUT / f"{name}_fold{fold}_{Path(head).stem}{end}_{shots}shot.json"
        if out.exists():
            continue
        config = config_of(name, head, fold, shots, own)
        half = wants_half(config.precision, device)
        if config.network == "base":
            pretrain(config, device, half)
        if training:
            if not learns(config):
                return
            network = base_folder(config) / "best.pt" if config.network == "base" else config.network
            another = (f"seed={config.seed + training}", f"tag=training{training}", f"network={network}")
            config = config_of(name, head, fold, shots, [*own, *another])
        folder = train(config, device, half)
        path = folder / f"{config.test.checkpoint}.pt" if folder else None
        where, result = test(config, device, half, path)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(where / "result.json", out)
        cell = {
            "set": name,
            "fold": fold,
            "head": Path(head).stem + end,
            "shots": shots,
            "miou": result["scores"]["miou"],
        }
        print(json.dumps(cell), flush=True)


def main() -> None:
    """Every head on every fold, training by training, fold by fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--heads", default=",".join(HEADS), help="by name or file, separated by commas")
    parser.add_argument("--folds", default="0,1,2,3")
    parser.add_argument("--trainings", default="0", help="by number, separated by commas")
    parser.add_argument("--end", default="", help="of the heads' names in files, where settings are given")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings, of every head")
    options = parser.parse_intermixed_args()
    folds, trainings = (map(int, x.split(",")) for x in (options.folds, options.trainings))
    for training, fold, head in product(trainings, folds, options.heads.split(",")):
        measure(options.set, head, fold, training, options.settings, options.end)
    for head in options.heads.split(","):
        print(heads_tables.row_of(options.set, Path(head).stem + options.end))


if __name__ == "__main__":
    main()
