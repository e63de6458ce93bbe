"""Necks against each other: `python studies/measure_necks.py OUT.json [data.root=PHOTOS] [key=value]`

Every neck goes through base training with several seeds and equally many steps, on `shapes` and, with
`data.root=`, on a set of one's own (the `folder` layout). All start from one backbone, which pyramid pooling
trained on `shapes` before (`--start 0`: from random weights). What is done is skipped: a run that was stopped
goes on, and with more seeds or necks only those are added. `--seeds 0` trains nothing and measures what necks
cost. What was found is printed as a table, too.
"""

import argparse
import json
import math
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch

from fss.bench.cases import Setting
from fss.bench.run import timed
from fss.config import Config
from fss.data.source import open_source
from fss.errors import UserError
from fss.metrics import interval95
from fss.model import build_backbone, build_model, build_neck
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.folders import environment
from fss.runs.precision import wants_half
from fss.testing.test import test
from fss.training.base import pretrain
from fss.training.heads import train
from fss.writing import write_text

NECKS = {
    "ppm": ["neck.type=ppm"],
    "sfnet": ["neck.type=sfnet"],
    "fpn": ["neck.type=fpn"],
    "alignseg": ["neck.type=alignseg"],
    "alignseg off": ["neck.type=alignseg", "neck.align=false"],
    "sfnet_gated": ["neck.type=sfnet_gated"],
    "sfnet_gated off": ["neck.type=sfnet_gated", "neck.align=false"],
}
PAIRS = [("sfnet", "fpn"), ("alignseg", "alignseg off"), ("sfnet_gated", "sfnet_gated off")]
COMMON = [
    "backbone.layers=18", "backbone.stage1=true", "neck.channels=128", "pretrain.seconds=null",
    "pretrain.epochs=1", "pretrain.keep=1", "pretrain.validations=1", "head.transformer=false", "test.runs=1",
    "test.episodes=200", "device=cpu",
]  # fmt: skip
SETS = {
    "shapes": ["data.size=97", "pretrain.crop=65", "pretrain.batch=16"],
    "folder": ["data.size=129", "pretrain.crop=97", "pretrain.batch=8"],
}
SCORES = {
    "base": "base classes, mIoU",
    "boundary": "within 3 px of boundaries",
    "novel": "novel classes, CWT's inner loop, 1 shot",
}
ROUNDS = 40  # rounds of timing


class Run(NamedTuple):
    """One network to train and test."""

    data: str
    neck: str
    seed: int


class Plan(NamedTuple):
    """The settings of a measurement, as asked for."""

    work: Path
    steps: int
    start: int
    root: str | None
    settings: Sequence[str]

    def config(self, data: str, neck: str, seed: int, *more: str) -> Config:
        """The settings of a run; its files lie in a folder of its own."""
        recipes = ["cpu"] if data == "folder" else []
        root = [f"data.root={self.root}"] if data == "folder" else []
        own = [f"seed={seed}", f"output={self.work / data / neck.replace(' ', '_') / f'seed{seed}'}"]
        return load_config(
            data, "cwt", [*COMMON, *SETS[data], *NECKS[neck], *root, *own, *self.settings, *more], recipes
        )

    def for_steps(self, steps: int, *run: Any) -> Config:
        """The settings with as many epochs as make `steps` steps."""
        config = self.config(*run)
        images = len(open_source(config.data, "train", config.output / "cache").samples)
        per_epoch = max(1, images // min(images, config.pretrain.batch))
        longer = config.pretrain.model_copy(update={"epochs": steps / per_epoch})
        return config.model_copy(update={"pretrain": longer})


def start_weights(plan: Plan) -> str:
    """The backbone that all runs start from: a file, which is made first if it is missing, or "random"."""
    if plan.start == 0:
        return "random"
    path = plan.work / "start.pt"
    if not path.is_file():
        config = plan.for_steps(plan.start, "shapes", "ppm", 2021, f"output={plan.work / 'start'}")
        device = torch.device("cpu")
        folder = pretrain(config, device, wants_half(config.precision, device))
        (folder / "best.pt").rename(path)
        shutil.rmtree(plan.work / "start")
    return str(path)


def measure(plan: Plan, run: Run, weights: str) -> dict[str, Any]:
    """Scores of one run, from its file or by training and testing it; its checkpoints are deleted then."""
    config = plan.for_steps(plan.steps, *run, f"backbone.weights={weights}")
    path = config.output / "measured.json"
    settings = json.loads(json.dumps(config.model_dump(mode="json")))
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there["settings"] != settings:
            raise UserError(f"{path} was measured with other settings; repeat those, or set --work elsewhere")
        return there
    device = torch.device("cpu")
    half = wants_half(config.precision, device)
    base = checkpoint.read(pretrain(config, device, half) / "best.pt")
    train(config, device, half)  # does nothing unless settings give the head something to learn
    _, result = test(config, device, half)
    measured = {
        "settings": settings,
        "base": base["best"],
        "boundary": base["facts"]["base_boundary_miou"],
        "novel": result["scores"]["miou"],
        "steps": base["step"],
        "training_seconds": base["spent"],
        "protocol": result["protocol_name"],
    }
    write_text(path, json.dumps(measured, indent=2) + "\n")
    for child in config.output.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
    return measured


def milliseconds(plan: Plan, data: str, necks: Sequence[str]) -> dict[str, float]:
    """Median time of an image in the frozen network, for all necks in turn; weights play no part in it."""
    steps: dict[str, Callable[[], object]] = {}
    for neck in necks:
        config = plan.config(data, neck, 0, "backbone.weights=random")
        backbone = build_backbone(config.backbone)
        half = wants_half(config.precision, torch.device("cpu"))
        model = build_model("cwt", {}, backbone, build_neck(config.neck, backbone), bf16=half).eval()
        image = torch.randn(1, 3, config.data.size, config.data.size)
        steps[neck] = lambda model=model, image=image: model.extract(image)
    setting = Setting(97, 18, torch.device("cpu"), False)
    times: dict[str, list[float]] = {neck: [] for neck in necks}
    for _ in range(ROUNDS + 3):
        for neck, step in steps.items():
            times[neck].append(timed(step, setting))
    return {neck: 1000 * median(t[3:]) for neck, t in times.items()}


def parameters(plan: Plan, data: str, neck: str) -> float:
    """Parameters of the neck, in millions; auxiliary classifiers, of base training alone, are left out."""
    config = plan.config(data, neck, 0, "backbone.weights=random")
    made = build_neck(config.neck, build_backbone(config.backbone, weights=False))
    return sum(p.numel() for p in made.parameters()) / 1e6


def with_interval(values: Sequence[float]) -> str:
    """Mean, and half the width of its 95% interval."""
    half = interval95(list(values))
    return f"{mean(values):.1f}" + ("" if half is None else f" ± {half:.1f}")


Costs = dict[str, dict[str, dict[str, float]]]  # set -> neck -> what it costs


def costs_of(plan: Plan, data: str, necks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Milliseconds an image and millions of parameters of each neck."""
    times = milliseconds(plan, data, necks)
    return {n: {"ms": round(times[n], 2), "parameters_m": round(parameters(plan, data, n), 3)} for n in necks}


def table(plan: Plan, found: dict[Run, dict[str, Any]], costs: Costs) -> Iterator[str]:
    """Lines of Markdown: for each set what was done, all necks, and alignment on against off."""
    for data in dict.fromkeys(run.data for run in found):
        mine = {run: m for run, m in found.items() if run.data == data}
        necks = list(dict.fromkeys(run.neck for run in mine))
        some = next(iter(mine.values()))
        yield from described(plan, data, some)
        yield f"| neck | {' | '.join(SCORES.values())} | ms an image | parameters, M | seeds |"
        yield "|---" * (len(SCORES) + 4) + "|"
        for neck in necks:
            rows = [m for run, m in mine.items() if run.neck == neck]
            cells = [with_interval([m[key] for m in rows]) for key in SCORES]
            cost = costs[data][neck]
            last = [f"{cost['ms']:.1f}", f"{cost['parameters_m']:.2f}", str(len(rows))]
            yield f"| {neck} | {' | '.join([*cells, *last])} |"
        yield from ["", f"| alignment on minus off, by seed | {' | '.join(SCORES.values())} |"]
        yield "|---" * (len(SCORES) + 1) + "|"
        for on, off in PAIRS:
            seeds = [run.seed for run in mine if run.neck == on and Run(data, off, run.seed) in mine]
            if seeds:
                gains = [
                    with_interval([mine[Run(data, on, s)][key] - mine[Run(data, off, s)][key] for s in seeds])
                    for key in SCORES
                ]
                yield f"| {on} - {off} | {' | '.join(gains)} |"
        yield ""


def described(plan: Plan, data: str, some: dict[str, Any]) -> Iterator[str]:
    """The line on settings that all rows of a table share."""
    s = some["settings"]
    stem = "random weights" if not plan.start else f"one backbone, {plan.start} steps of ppm on shapes before"
    set_name = data if data == "shapes" else f"{data} ({Path(str(plan.root)).name})"
    strides = "4, 8, 8, 8" if s["backbone"].get("stride", 8) == 8 else "4, 8, 16, 32"
    yield (
        f"**{set_name}**, fold {s['data']['fold']}: {s['backbone']['type']}, stages of stride "
        f"{strides}; {s['neck']['channels']} channels; from {stem}; {some['steps']} steps of "
        f"{s['pretrain']['batch']} crops of {s['pretrain']['crop']} px, tested at {s['data']['size']} px. "
        f"Novel classes: {some['protocol']}; heads get maps of stride {s['neck'].get('stride', 8)}. Mean "
        f"and 95% interval over seeds. Times: {torch.get_num_threads()} thread(s), {platform.machine()}, "
        f"batch 1, median of {ROUNDS} in turn."
    )
    yield ""


def told(plan: Plan, found: dict[Run, dict[str, Any]], costs: Costs) -> dict[str, Any]:
    """All that was measured, for a file."""
    keys = (*SCORES, "steps", "training_seconds", "protocol")
    return {
        "date": date.today().isoformat(),
        "settings": list(plan.settings), "steps": plan.steps, "start": plan.start, "rounds": ROUNDS,
        "runs": [{**run._asdict(), **{k: m[k] for k in keys}} for run, m in found.items()],
        "costs": costs,
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip


def main() -> int:
    """Measure what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--work", type=Path, default=Path("results/necks"), help="where runs are kept")
    parser.add_argument("--necks", nargs="+", default=list(NECKS)[:5], choices=NECKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="of base training, for each network")
    parser.add_argument("--start", type=int, default=1200, help="steps for the backbone that all start from")
    options = parser.parse_intermixed_args()
    root = [s for s in options.settings if s.startswith("data.root=")]
    settings = [s for s in options.settings if s not in root]
    plan = Plan(
        options.work, options.steps, options.start, root[-1].partition("=")[2] if root else None, settings
    )
    sets = ["shapes", *(["folder"] if root else [])]
    found: dict[Run, dict[str, Any]] = {}
    try:
        weights = start_weights(plan) if options.seeds else "random"
        for seed in range(options.seeds):
            for run in [Run(data, neck, seed) for data in sets for neck in options.necks]:
                found[run] = measure(plan, run, weights)
                scores = ", ".join(f"{key} {found[run][key]:.2f}" for key in SCORES)
                print(f"{run.data}, {run.neck}, seed {run.seed}: {scores}", flush=True)
        costs = {data: costs_of(plan, data, options.necks) for data in sets}
        write_text(options.out, json.dumps(told(plan, found, costs), indent=1) + "\n")
        print("\n".join(table(plan, found, costs)) or json.dumps(costs, indent=1))
    except UserError as error:
        print(f"measure_necks: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("measure_necks: stopped; the same command goes on from there", file=sys.stderr)
        return 130
    if any(math.isnan(m[key]) for m in found.values() for key in SCORES):
        print("some scores are not numbers: a class without pixels?", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
