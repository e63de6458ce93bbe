"""How a test's cost grows: `python scripts/bench_growth.py docs/growth.png [--runs 3]` (wants matplotlib).

Seconds of one episode against shots and image size, nothing cached; and of a whole test against its episodes
and images, each image encoded once, from the measured cost of an image and of an episode.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib
import torch

from fss.bench.cases import Setting, cached, encode, few_shot
from fss.bench.run import timed
from fss.engine.precision import wants_half

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


def main() -> None:
    """Measure, plot, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(473, 50, device, wants_half("auto", device))
    _, (by_shots, by_size, whole) = plt.subplots(1, 3, figsize=(13, 3.8))
    for head, name in (("cwt", "CWT"), ("asgnet", "ASGNet")):
        shots = [seconds(few_shot(setting, head, False, k).ours, setting, options.runs) for k in SHOTS]
        sizes = [
            seconds(few_shot(setting._replace(size=s), head, False, 1).ours, setting, options.runs)
            for s in SIZES
        ]
        image = seconds(encode(setting, head).ours, setting, options.runs)
        episode = seconds(cached(setting, head, 8).ours, setting, options.runs) / 8
        print(f"{name}: shots {dict(zip(SHOTS, shots, strict=True))}")
        print(f"{name}: sizes {dict(zip(SIZES, sizes, strict=True))}")
        print(f"{name}: an image {image:.3f} s, an episode of cached images {episode:.3f} s")
        by_shots.plot(SHOTS, shots, "o-", label=name)
        by_size.plot(SIZES, sizes, "o-", label=name)
        for n in IMAGES:
            whole.plot(
                EPISODES,
                [(n * image + e * episode) / 60 for e in EPISODES],
                "o-",
                label=f"{name}, {n} images",
            )
    titles = {
        by_shots: ("shots (473 px)", "seconds an episode"),
        by_size: ("pixels a side (1 shot)", "seconds an episode"),
        whole: ("episodes (1 shot, 473 px)", "minutes a test, images cached"),
    }
    for axes, (below, beside) in titles.items():
        axes.set(xlabel=below, ylabel=beside)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    whole.set(xscale="log", yscale="log")
    whole.set_ylim(bottom=None, auto=True)
    plt.tight_layout()
    plt.savefig(options.out, dpi=90)


if __name__ == "__main__":
    main()
