"""How fast a data set's masks are counted: `python studies/bench_index.py [OUT.json] [--runs 3]`.

The baseline reads mask after mask and passes over each once per class. Both run in turn on the same files,
masks of 500 x 375 drawn into a temporary folder. Prints medians, the ratio, and the time of a second start.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from PIL import Image

from fss.data.index import build_index
from fss.data.lists import Sample, read_list
from fss.runs.folders import environment

CLASSES = 20


def draw(root: Path, count: int) -> list[Sample]:
    """A set in the VOC layout: four ellipses a mask, one photo for all."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir()
    photo = root / "photo.jpg"
    Image.fromarray(random.integers(0, 256, (375, 500, 3)).astype(np.uint8)).save(photo)
    for n in range(count):
        mask = np.zeros((375, 500), np.uint8)
        for _ in range(4):
            centre, axes = random.integers((500, 375)), random.integers(20, 120, 2)
            angle, label = int(random.integers(180)), int(random.integers(1, CLASSES + 1))
            cv2.ellipse(mask, centre.tolist(), axes.tolist(), angle, 0, 360, label, -1)
        picture = Image.fromarray(mask)
        picture.putpalette(list(range(256)) * 3)
        picture.save(root / f"SegmentationClass/{n}.png")
        (root / f"JPEGImages/{n}.jpg").hardlink_to(photo)
    (root / "list.txt").write_text("".join(f"{n}\n" for n in range(count)))
    return read_list(root / "list.txt", root)


def one_by_one(samples: list[Sample]) -> np.ndarray:
    """The baseline: pixels of each label, (images, classes + 1)."""
    rows = []
    for sample in samples:
        mask = np.array(Image.open(sample.mask))
        rows.append([(mask == c).sum() for c in range(CLASSES + 1)])
    return np.array(rows)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Draw a set, time both ways in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="a JSON file")
    parser.add_argument("--masks", type=int, default=12_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        samples = draw(root, options.masks)
        assert np.array_equal(one_by_one(samples[:50]), build_index(samples[:50], CLASSES).pixels)
        plain, ours, again = [], [], []
        for run in range(options.runs):
            plain.append(timed(lambda: one_by_one(samples)))
            cache = root / f"cache{run}"
            ours.append(timed(lambda: build_index(samples, CLASSES, cache)))  # noqa: B023
            again.append(timed(lambda: build_index(read_list(root / "list.txt", root), CLASSES, cache)))  # noqa: B023
    seconds = {"one by one": plain, "indexed": ours, "second start": again}
    told = {
        "date": date.today().isoformat(), "masks": options.masks, "runs": options.runs,
        "seconds": {name: round(median(taken), 2) for name, taken in seconds.items()},
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{options.masks} masks, medians of {options.runs}: one by one {median(plain):.1f} s, ", end="")
    print(f"indexed {median(ours):.1f} s ({median(plain) / median(ours):.1f}x); ", end="")
    print(f"second start {median(again):.2f} s, list included")


if __name__ == "__main__":
    main()
