"""The constants of the votes head, chosen on training photos alone, each fold's on the classes it trains on.

Episodes are drawn among the training photos of a folder in VOC layout. Every value of every constant is tried
while the others stay as configs/head/votes.yaml and the head have them. A fold's column is the mean IoU of
the classes that are *not* held out there: a choice by a column has not seen what that fold tests.

    python studies/choose_votes.py data/msrc studies/results/votes_choice.json
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from fss.bars import Bar
from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.episodes import PictureSet, photo_mask
from fss.data.folds import novel_classes
from fss.data.source import Source, open_source
from fss.heads import Encoded, build_head
from fss.heads.votes import MAP
from fss.model import build_backbone, build_model
from fss.ops import binary_mask, foreground
from fss.recipes import load_config
from fss.runs.folders import environment

LEVELS = {
    "stages 3, 4": {"stage3": 1.0, "stage4": 1.0},
    "stages 2, 3, 4": {"stage2": 1.0, "stage3": 1.0, "stage4": 1.0},
    "stage 2 half": {"stage2": 0.5, "stage3": 1.0, "stage4": 1.0},
}
TRIED = {
    "level": list(LEVELS.values()), "tau": [0.025, 0.05, 0.07], "trust": [3, 30],
    "walk": [0.0, 0.5, 0.9], "walk_tau": [0.05, 0.12],
}  # fmt: skip


class Photos:
    """The training photos' features, masks and extents at network size, computed once."""

    def __init__(self, config: Config) -> None:
        self.size, self.source = config.data.size, self._source(config)
        self.model = build_model("votes", config.head.options, build_backbone(config.backbone)).eval()
        self.pictures = PictureSet(self.source, Canvas(self.size))
        every = [self.pictures.load(i) for i in range(len(self.source.samples))]
        self.labels = torch.stack([p.labels for p in every])
        self.inside = torch.stack([photo_mask(p.photo, self.size) for p in every])
        with torch.no_grad():
            images = Bar(every, "features", leave=False)
            self.features = [self.model.extract(p.image[None]) for p in images]

    def _source(self, config: Config) -> Source:
        return replace(open_source(config.data, "train"), ignored=())

    def maps(self, options: dict) -> tuple[torch.nn.Module, torch.Tensor]:
        """A head, and what it keeps of every photo."""
        head = build_head("votes", options, self.model.backbone.channels)
        head.corners = self.model.corners
        return head, torch.cat([head.encode({k: f[k] for k in head.levels})[MAP] for f in self.features])


def episodes(photos: Photos, shots: int, count: int, pixels: int, seed: int) -> list[tuple[int, np.ndarray]]:
    """Class, and the photos of query and supports."""
    found = []
    for label in range(1, len(photos.source.classes) + 1):
        pool = photos.source.index.images_of(label, pixels)
        random = np.random.default_rng([seed, label, shots])
        if len(pool) > shots:
            found += [(label, random.choice(pool, shots + 1, replace=False)) for _ in range(count)]
    return found


@torch.no_grad()
def ious(photos: Photos, options: dict, drawn: list, at_once: int = 8) -> dict[int, float]:
    """IoU of every class over its episodes, percent."""
    head, maps = photos.maps(options)
    count = np.zeros((len(photos.source.classes) + 1, 2))
    for start in range(0, len(drawn), at_once):
        labels = torch.tensor([label for label, _ in drawn[start : start + at_once]])
        which = torch.tensor(np.array([chosen for _, chosen in drawn[start : start + at_once]]))
        query, support = which[:, 0], which[:, 1:]
        masks = binary_mask(photos.labels[support], labels)
        episode = Encoded(
            {MAP: maps[query]}, {MAP: maps[support]}, masks, [0] * len(query), photos.model.corners,
            photo=photos.inside[query],
        )  # fmt: skip
        found = foreground(head(episode).logits, (photos.size, photos.size)) == 1
        truth = binary_mask(photos.labels[query], labels)
        known, truth = truth != 255, truth == 1
        for label, f, t, k in zip(labels.tolist(), found, truth, known, strict=True):
            count[label] += [int((f & t & k).sum()), int(((f | t) & k).sum())]
    return {label: 100 * float(count[label, 0] / max(count[label, 1], 1)) for label, _ in drawn}


def columns(scores: dict[int, float], classes: int) -> list[float]:
    """Mean over all classes, then over the base classes of each of four folds."""
    means = [np.mean(list(scores.values()))]
    for fold in range(4):
        held = set(novel_classes(classes, fold, 4, "contiguous"))
        means.append(np.mean([iou for label, iou in scores.items() if label not in held]))
    return [round(float(m), 2) for m in means]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--episodes", type=int, default=10, help="of a class")
    parser.add_argument("--size", type=int, default=257)
    parser.add_argument("--pixels", type=int, default=1024, help="of the class, for a photo to show it")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    settings = [f"data.root={given.root}", f"data.size={given.size}"]
    config = load_config("folder", "votes", settings)
    photos, table = Photos(config), {}
    own = dict(config.head.options)
    chosen = {name: own.get(name, getattr(photos.model.head, name, None)) for name in TRIED}
    print(f"{'':42} shots     all  base of fold 0, 1, 2, 3")
    for shots in (1, 5):
        drawn = episodes(photos, shots, given.episodes, given.pixels, given.seed)
        for name, value in [("as chosen", None), *((n, v) for n, values in TRIED.items() for v in values)]:
            options = own if value is None else {**own, name: value}
            row = columns(ious(photos, options, drawn), len(photos.source.classes))
            text = name if value is None else f"{name} {value}"
            table[f"{text}, {shots} shots"] = row
            print(f"{text[:42]:42} {shots:5}  " + "  ".join(f"{x:6.2f}" for x in row), flush=True)
    told = {"date": date.today().isoformat(), "set": given.root.name}
    told |= {
        "environment": environment(torch.device("cpu")),
        **{k: v for k, v in vars(given).items() if k not in ("root", "out")},
    }
    told |= {"chosen": chosen, "columns": ["all", *(f"base of fold {f}" for f in range(4))], "rows": table}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
