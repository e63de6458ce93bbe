"""Costs of every head of the zoo: `python studies/measure_costs.py SET [--heads A,B]`, on an idle machine

Of every head, on fold 0 of SET as `measure_heads.py` has it: parameters that learn; seconds of a test episode
with nothing kept (photos read and encoded) and with photos kept, for one shot and five, medians of three
passes over the same episodes; GiB that a batch of eight test episodes takes above what lies there before it,
nothing kept, and a training step. Networks under heads are not trained first: weights change no cost. Each
head's costs go into docs/results/heads/costs_SET.json; a head that is there is skipped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure_heads import HEADS, OUT, SETS, config_of
from timing import median_seconds

from fss.bench.memory import peak
from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.episodes import EpisodeSet
from fss.data.plan import Draw
from fss.data.source import Source, open_source
from fss.episode import collate
from fss.model import FewShotModel
from fss.ops import segmentation_loss
from fss.runs.folders import environment
from fss.runs.models import load_network
from fss.testing.evaluate import evaluate, feature_store
from fss.testing.plans import make_plans
from fss.training.base import pretrain
from fss.writing import write_text

CPU = torch.device("cpu")
EPISODES, BATCH = 16, 8


def model_of(config: Config) -> FewShotModel:
    """The head as it is before training, on its network."""
    if config.network == "base":
        pretrain(config, CPU, half=False)
    net = load_network(config, open_source(config.data, "train", config.output / "cache"))
    return net.model(config.head, False, config.train.shots).eval()


def costs(name: str, head: str, shots: int) -> dict[str, float]:
    """The costs of one head with one number of supports."""
    settings = ["pretrain.epochs=0", "test.runs=1", f"test.episodes={EPISODES}", "data.workers=0"]
    config = config_of(name, head, 0, shots, [*settings, "precision=fp32", "output=results/costs"])
    source = open_source(config.data, "val", config.output / "cache")
    plans, model = make_plans(config, source), model_of(config)

    def passes(gib: float | None) -> Callable[[], object]:
        store = feature_store(model, source, config.model_copy(update={"cache_gib": gib}), CPU)
        return lambda: evaluate(model, store, plans, len(source.classes), BATCH)

    fresh, kept = passes(0), passes(None)
    kept()  # the first pass encodes the photos
    measured = {
        "parameters": sum(p.numel() for p in model.head.parameters() if p.requires_grad),
        "fresh_seconds": median_seconds(fresh) / EPISODES,
        "kept_seconds": median_seconds(kept) / EPISODES,
        "test_gib": peak(fresh, CPU),
    }
    if model.head.learns:
        measured["train_gib"] = peak(step_of(model, config, source, plans[0][:BATCH]), CPU)
    return {key: float(f"{value:.4g}") for key, value in measured.items()}


def step_of(
    model: FewShotModel, config: Config, source: Source, draws: Sequence[Draw]
) -> Callable[[], object]:
    """A training step without its optimiser, on episodes whose photos are encoded in it."""
    data = EpisodeSet(source, Canvas.of(config.data), "none", (1, 1))
    e = collate([data.load(draw) for draw in draws])

    def step() -> None:
        model.train()
        out = model.output(e, [draw.seed for draw in draws], training=True)
        loss = segmentation_loss(out.logits, e.query_mask, model.head.balanced_loss, model.corners)
        (loss + sum(out.losses.values())).backward()

    return step


def main() -> None:
    """Every head, one and five shots, written down one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--heads", default=",".join(HEADS), help="by name, separated by commas")
    options = parser.parse_args()
    out = OUT / f"costs_{options.set}.json"
    report: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {"heads": {}}
    report["environment"] = environment(CPU)
    for head in options.heads.split(","):
        if head not in report["heads"]:
            report["heads"][head] = {str(shots): costs(options.set, head, shots) for shots in (1, 5)}
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, json.dumps(report, indent=1) + "\n")
            print(head, json.dumps(report["heads"][head]), flush=True)


if __name__ == "__main__":
    main()
