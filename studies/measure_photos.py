"""How good the masks of `fss predict` are, class by class, on a folder of annotated photos in VOC layout.

For each class: supports drawn from the training photos, every validation photo that shows it segmented, and
IoU over all of their pixels (in percent). What is compared differs in one thing from the default. With
`--split train` the queries are training photos, too, for choices that must not see the validation photos.

    python studies/measure_photos.py data/msrc studies/results/photos_msrc.json --also prototype
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fss.bars import Bar
from fss.photos.annotations import Support
from fss.photos.predictor import Predictor
from fss.runs.folders import environment

IGNORE = 255
# name -> arguments of `Predictor`, of `learn`
WAYS = {
    "default": ({}, {}),
    "prototype": ({"head": "prototype", "settings": ["head.level=[stage3,stage4]"]}, {}),
    "even odds": ({}, {"leave_one_out": False}),
    "plain edges": ({"edges": False}, {}),
    "whole photos": ({}, {"tile": None}),
    "257 px": ({"size": 257}, {}),
    "385 px": ({"size": 385}, {}),
    "449 px": ({"size": 449}, {}),
}


class Photos:
    """A folder in VOC layout: photos and label maps of both lists, read once."""

    def __init__(self, root: Path) -> None:
        self.classes = (root / "classes.txt").read_text().split()
        self.lists = {
            split: (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
            for split in ("train", "val")
        }
        names = self.lists["train"] + self.lists["val"]
        self.images = {
            n: np.array(Image.open(root / f"JPEGImages/{n}.jpg").convert("RGB"))
            for n in Bar(names, "photos", leave=False)
        }
        self.labels = {n: np.array(Image.open(root / f"SegmentationClass/{n}.png")) for n in names}

    def of(self, split: str, label: int, pixels: int) -> list[str]:
        """Photos of a list that show a class on so many pixels."""
        return [n for n in self.lists[split] if (self.labels[n] == label).sum() >= pixels]

    def support(self, name: str, label: int) -> Support:
        labels = self.labels[name]
        mask = np.where(labels == IGNORE, IGNORE, labels == label).astype(np.uint8)
        return Support(self.images[name], mask, self.classes[label - 1])


def counts(found: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    """Pixels in both and in either, of a mask (H,W) bool and the true one."""
    known, truth = labels != IGNORE, labels == label
    return np.array([(found & truth & known).sum(), ((found | truth) & known).sum()])


def measure(photos: Photos, way: str, options: argparse.Namespace) -> dict:
    """IoU of each class and draw, and seconds a photo."""
    made, learnt = WAYS[way]
    predictor, table, seconds, queries = Predictor(**made), {}, 0.0, 0
    for label, name in enumerate(Bar(photos.classes, way, leave=False), 1):
        pool = photos.of("train", label, options.pixels)
        table[name] = []
        for draw in range(options.draws):
            order = np.random.default_rng([options.seed, label, draw]).permutation(pool)
            supports, rest = list(order[: options.shots]), list(order[options.shots :])
            if not rest:
                continue
            predictor.learn([photos.support(n, label) for n in supports], **learnt)
            every = rest if options.split == "train" else photos.of("val", label, options.pixels)
            every = every[: options.most]
            total = np.zeros(2, np.int64)
            for query in every:
                start = time.perf_counter()
                found = predictor(photos.images[query]).labels() > 0
                seconds, queries = seconds + time.perf_counter() - start, queries + 1
                total += counts(found, photos.labels[query], label)
            table[name].append(round(100 * float(total[0] / max(total[1], 1)), 2))
    table = {name: ious for name, ious in table.items() if ious}
    mean = float(np.mean([np.mean(ious) for ious in table.values()]))
    per_photo = round(seconds / max(queries, 1), 3)
    return {"miou": round(mean, 2), "iou": table, "queries": queries, "seconds_a_photo": per_photo}


def compared(one: dict, other: dict) -> dict:
    """Gain of `one` over `other` in the same draws: mean over classes, and how often it hurts and helps."""
    gains = {name: np.array(one["iou"][name]) - np.array(other["iou"][name]) for name in one["iou"]}
    every = np.concatenate(list(gains.values()))
    return {
        "mean_gain": round(float(np.mean([g.mean() for g in gains.values()])), 2),
        "draws": len(every), "hurts_by_a_point": round(float((every < -1).mean()), 3),
        "helps_by_a_point": round(float((every > 1).mean()), 3), "worst": round(float(every.min()), 1),
        "best": round(float(every.max()), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--also", nargs="*", default=[], choices=list(WAYS), help="beside the default")
    parser.add_argument("--split", default="val", choices=("val", "train"), help="of the queries")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1, help="of supports, a class")
    parser.add_argument("--most", type=int, default=None, help="queries of a draw")
    parser.add_argument("--pixels", type=int, default=1024, help="of a class, for a photo to show it")
    parser.add_argument("--seed", type=int, default=2021)
    options = parser.parse_args()
    photos, found = Photos(options.root), {}
    for way in ("default", *options.also):
        found[way] = measure(photos, way, options)
        if way != "default":
            found[way]["default_gains"] = compared(found["default"], found[way])
        told = {k: v for k, v in found[way].items() if k != "iou"}
        print(way, json.dumps(told), flush=True)
    asked = {k: v for k, v in vars(options).items() if k not in ("root", "out", "also")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    told = {"date": date.today().isoformat(), "set": options.root.name, **asked, "ways": found,
            "environment": environment(torch.device("cpu"))}  # fmt: skip
    options.out.write_text(json.dumps(told, indent=1) + "\n")
    print("\n| class | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for name in found["default"]["iou"]:
        print(f"| {name} | " + " | ".join(f"{np.mean(w['iou'][name]):.1f}" for w in found.values()) + " |")
    print("| **mean** | " + " | ".join(f"**{w['miou']:.1f}**" for w in found.values()) + " |")


if __name__ == "__main__":
    main()
