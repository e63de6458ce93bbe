"""Feature clustering timed and compared: `python studies/bench_cluster.py FOLDER [--steps 5] [--masks]`.

FOLDER holds NAME.jpg with NAME_scribble.png. Seconds of one step with the published settings, as `fss
cluster` does it and as one would write it down (float32, contiguous, autograd), in turn, medians. With
--masks the masks of each photo by the published settings, by the default ones, and by these with another
seed: IoU, strokes that are right, seconds. The published run takes minutes a photo; it goes on where it was
stopped.
"""

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch

from fss.bench.plain_cluster import Plain
from fss.cli import main as fss
from fss.data.files import read_image, read_mask
from fss.episode import IGNORE
from fss.runs.memory import keep_freed_memory
from fss.runs.precision import wants_half
from fss.scribbles.clustering import PUBLISHED, Clusterer


def steps(photo: Path, scribble: Path, count: int) -> tuple[float, float]:
    """Median seconds of a step, plain and ours, in turn after one to warm up."""
    marks = torch.from_numpy(read_mask(scribble))
    ours = Clusterer(PUBLISHED, seed=0, half=wants_half("auto", torch.device("cpu")))
    plain = Plain(PUBLISHED, seed=0)
    x = ours.prepared(read_image(photo))
    each = x.float().contiguous()
    times: list[tuple[float, float]] = []
    for _ in range(count + 1):
        start = time.perf_counter()
        plain.step(each, marks)
        middle = time.perf_counter()
        ours.step(x, marks)
        times.append((middle - start, time.perf_counter() - middle))
    return median(t[0] for t in times[1:]), median(t[1] for t in times[1:])


def masks(photo: Path, scribble: Path, out: Path, most: int) -> str:
    """The table's line for one photo."""
    marks, cells, found = read_mask(scribble), [photo.stem], []
    ways = {"published": ["--published", "--steps", str(most)], "default": [], "seed1": ["--seed", "1"]}
    for name, more in ways.items():
        code = fss(["cluster", str(photo), str(out / name), "--scribble", str(scribble), *more])
        if code:
            sys.exit(code)
        labels = read_mask(out / name / f"{photo.stem}_labels.png")
        told = json.loads((out / name / f"{photo.stem}_cluster.json").read_text())
        found.append(np.isin(labels, np.setdiff1d(marks, [0, IGNORE])))
        cells.append(f"{told['seconds']:.1f} s, {told['steps']} steps, {100 * told['marks_right']:.1f}%")
    ious = [f"{(a & b).sum() / (a | b).sum():.3f}" for a, b in pairwise(found)]
    return f"| {' | '.join([*cells[:3], *ious])} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--published-steps", type=int, default=PUBLISHED.steps)
    parser.add_argument("--out", type=Path, default=Path("results/cluster"))
    options = parser.parse_args()
    pairs = [
        (p, s) for p in sorted(options.folder.glob("*.jpg"))
        if (s := p.with_name(f"{p.stem}_scribble.png")).exists()
    ]  # fmt: skip
    print(
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.steps} in turn"
    )
    if options.masks:
        print("| photo | published: time, steps, strokes right | default | IoU of the two | of two seeds |")
        print("|---|---|---|---|---|")
        for photo, scribble in pairs:
            print(masks(photo, scribble, options.out, options.published_steps), flush=True)
        return
    # The plain way is timed with and without kept memory, because keeping it is a part of our way.
    for kept in (False, True):
        if kept:
            keep_freed_memory()
        print(f"freed memory {'kept' if kept else 'given back'}")
        for photo, scribble in pairs:
            plain, ours = steps(photo, scribble, options.steps)
            print(
                f"  {photo.stem}: plain {plain:.2f} s, fss {ours:.2f} s, ratio {plain / ours:.1f}", flush=True
            )


if __name__ == "__main__":
    main()
