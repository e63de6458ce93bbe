"""How a test's cost grows: `python studies/bench_growth.py docs/growth.png [--runs 3]` (wants matplotlib).

Seconds of one episode against shots and image size, nothing cached; and of a whole test against its episodes
and images, each image encoded once, from the measured cost of an image and of an episode.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import torch

from fss.bench.cases import Setting, cached, encode, few_shot
from fss.bench.run import timed
from fss.runs.precision import wants_half

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOTS, SIZES, EPISODES, IMAGES = (
    (1, 2, 3, 5, 10),
    (97, 193, 321, 473),
    (100, 1000, 5000, 20000),
    (100, 350, 1449),
)


def seconds(step: Callable[[], object], setting: Setting, runs: int) -> float:
    """Median after one run to warm up."""
    return median([timed(step, setting) for _ in range(runs + 1)][1:])


def measure(runs: int) -> dict[str, dict[str, Any]]:
    """For each head: seconds by shots, by size, of an image, and of an episode of cached images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting, found = Setting(473, 50, device, wants_half("auto", device)), {}
    for head, name in (("cwt", "CWT"), ("asgnet", "ASGNet")):
        sizes = [setting._replace(size=size) for size in SIZES]
        found[name] = {
            "shots": [seconds(few_shot(setting, head, False, k).ours, setting, runs) for k in SHOTS],
            "sizes": [seconds(few_shot(s, head, False, 1).ours, s, runs) for s in sizes],
            "image": seconds(encode(setting, head).ours, setting, runs),
            "episode": seconds(cached(setting, head, 8).ours, setting, runs) / 8,
        }
    return found


def draw(found: dict[str, dict[str, Any]], out: Path) -> None:
    """Three plots side by side: a colour for each head, a dash for each number of images."""
    _, (by_shots, by_size, whole) = plt.subplots(1, 3, figsize=(13, 3.8))
    for (name, times), colour in zip(found.items(), ("C0", "C1"), strict=True):
        by_shots.plot(SHOTS, times["shots"], "o-", color=colour, label=name)
        by_size.plot(SIZES, times["sizes"], "o-", color=colour, label=name)
        for images, dash in zip(IMAGES, (":", "--", "-"), strict=True):
            minutes = [(images * times["image"] + e * times["episode"]) / 60 for e in EPISODES]
            whole.plot(EPISODES, minutes, "o" + dash, color=colour, label=f"{name}, {images} images")
    titles = {
        by_shots: ("shots (473 px)", "seconds an episode"),
        by_size: ("pixels a side (1 shot)", "seconds an episode"),
        whole: ("episodes (1 shot, 473 px)", "minutes a test, images cached"),
    }
    whole.set(xscale="log", yscale="log")
    for axes, (below, beside) in titles.items():
        axes.set(xlabel=below, ylabel=beside)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in (by_shots, by_size):
        axes.set_ylim(bottom=0)
    plt.tight_layout()
    plt.savefig(out, dpi=90)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.runs)
    print(json.dumps(found))
    draw(found, options.out)


if __name__ == "__main__":
    main()
