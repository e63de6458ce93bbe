"""How the cost of one's own photos grows: `python studies/measure_growth.py OUT.json`, on an idle machine

Seconds and memory (GiB above what lies there before) of `fss predict` as it comes, while one number grows:
supports, the side at which photos are seen, classes, cells of the compared map, photos. Photos are drawn
(`shapes`, 320 px). Medians of three; numbers of photos once, seen at 161 px. A run that was stopped goes on.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import redirect_stdout
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import median_seconds

from fss.bars import Bar
from fss.bench.memory import peak
from fss.data.shapes import CLASSES, draw_shapes
from fss.photos.annotations import Support
from fss.photos.files import Job, run_predict
from fss.photos.predictor import Predictor
from fss.runs.folders import environment
from fss.writing import write_text

GROWS = {
    "supports": (1, 2, 5, 10, 20, 50),
    "side": (161, 225, 321, 449, 641, 897),
    "classes": (1, 2, 5, 10, 20),
    "cells": (121, 441, 1681, 6561),  # of stages 4, 3, 2 and 1 at 321 px
    "photos": (1, 10, 100, 1000, 10_000),
}
LEVELS = {121: "stage4", 441: "stage3", 1681: "stage2", 6561: "stage1"}
CPU = torch.device("cpu")
SMALL = 161  # px at which many photos are seen, so that ten thousand take minutes


class Photos:
    """Drawn photos with their labels."""

    def __init__(self, root: Path) -> None:
        draw_shapes(root, train=600, val=20, size=320)
        self.queries = sorted((root / "JPEGImages").glob("val*"))
        self.train = sorted(p for p in (root / "JPEGImages").iterdir() if p not in self.queries)
        self.masks = root / "SegmentationClass"

    def labels(self, path: Path) -> np.ndarray:
        """(H,W), 0 to 20 and 255."""
        return np.array(Image.open(self.masks / f"{path.stem}.png"))

    def supports(self, label: int, count: int) -> list[Support]:
        """Photos that show a class, with its masks."""
        supports: list[Support] = []
        for path in self.train:
            labels = self.labels(path)
            if (labels == label).sum() >= 1024:
                mask = np.where(labels == 255, 255, labels == label).astype(np.uint8)
                supports.append(Support(path, mask, CLASSES[label - 1]))
            if len(supports) == count:
                return supports
        raise SystemExit(f"only {len(supports)} photos show {CLASSES[label - 1]}; wanted {count}")


def measure(photos: Photos, what: str, number: int) -> dict[str, float]:
    """Seconds and GiB of learning and of a photo, where `what` is so many and all else as it comes."""
    if what == "photos":
        return whole_run(photos, number)
    size = number if what == "side" else None
    settings = [f"head.level={LEVELS[number]}"] if what == "cells" else []
    count, classes = (number if what == x else 1 for x in ("supports", "classes"))
    supports = [s for label in range(1, classes + 1) for s in photos.supports(label, count)]
    predictor = Predictor(size=size, settings=settings)
    query = np.array(Image.open(photos.queries[0]).convert("RGB"))
    learn = lambda: predictor.learn(supports, tile=None)  # noqa: E731
    learn_gib = peak(learn, CPU)
    return {
        "learn_seconds": median_seconds(learn), "learn_gib": learn_gib,
        "photo_seconds": median_seconds(lambda: predictor(query)),
        "photo_gib": peak(lambda: predictor(query), CPU),
    }  # fmt: skip


def whole_run(photos: Photos, count: int) -> dict[str, float]:
    """Seconds and GiB of `fss predict` on a folder of so many photos, files written."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "photos", Path(scratch) / "out"
        folder.mkdir()
        for i in range(count):
            source = photos.queries[i % len(photos.queries)]
            os.link(source, folder / f"{i:05d}{source.suffix}")
        job = Job(photos.supports(1, 3), [folder], out, size=SMALL)
        start = time.perf_counter()
        with redirect_stdout(StringIO()):
            gib = peak(lambda: run_predict(job), CPU)
        return {"photo_seconds": time.perf_counter() - start, "photo_gib": gib}


def main() -> None:
    """Every number, written down one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--most", type=int, default=10_000, help="photos")
    given = parser.parse_args()
    report: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"grows": {}}
    report |= {"date": date.today().isoformat(), "environment": environment(CPU)}
    with tempfile.TemporaryDirectory() as root:
        photos = Photos(Path(root) / "shapes")
        every = [(what, n) for what, numbers in GROWS.items() for n in numbers]
        for what, number in Bar(every, "growth", leave=False):
            done = report["grows"].setdefault(what, {})
            if str(number) in done or (what == "photos" and number > given.most):
                continue
            done[str(number)] = {k: float(f"{v:.4g}") for k, v in measure(photos, what, number).items()}
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_text(given.out, json.dumps(report, indent=1) + "\n")
            print(what, number, json.dumps(done[str(number)]), flush=True)


if __name__ == "__main__":
    main()
