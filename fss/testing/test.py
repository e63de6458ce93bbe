"""The reported numbers: run the protocol, write `result.json` and each episode's counts, draw on request."""

import hashlib
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from fss.config import Config, DataConfig
from fss.data.canvas import Canvas
from fss.data.plan import Draw, plan_hash
from fss.data.planfile import seeds_hash
from fss.data.source import Source, open_source
from fss.errors import UserError
from fss.metrics import EpisodeScore, interval95
from fss.model import frozen_checksum
from fss.pictures.overlay import EpisodePictures
from fss.reading import read_json
from fss.report.episodes import NAME, Scored, episodes_text
from fss.report.protocol import protocol_name
from fss.runs import distributed
from fss.runs.folders import environment, open_folder, test_folder
from fss.runs.identity import whole
from fss.runs.models import load_trained
from fss.testing.evaluate import Evaluation, evaluate, feature_store
from fss.testing.plans import make_plans
from fss.testing.supports import describe, make_supports, maker_of
from fss.writing import write_text


def test(
    config: Config, device: torch.device, half: bool, path: Path | None = None, visualize: bool = False,
    explain: bool = False,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Test a checkpoint on the novel classes of the fold.

    Args:
        path: a checkpoint; default: the one that training with the same settings left.
        visualize: write one picture per episode, and a contact sheet.
        explain: and one of how the head comes to its answer, where it can tell.

    Returns:
        the run's folder and the content of its `result.json`.

    Raises:
        UserError: data or checkpoint missing or unfit, too few images of a class.
    """
    source = open_source(config.data, "val", config.output / "cache")
    trained = load_trained(config, source, half, path)
    model = trained.model.to(device).to(memory_format=torch.channels_last)
    plans = make_plans(config, source)
    said = protocol(config, source, plans, trained.kind, model.head.sees_query_mask)
    if trained.kind == "best" and "validation_classes" in trained.told:
        said["selection"] = "best checkpoint by base classes that training left out"
    folder = _folder_for(said, test_folder(config, trained.home, trained.kind))
    drawn = visualize or explain
    made = make_supports(config, source, plans, device, half)
    supports, supports_told = made or (None, None)
    shown = supports.picture if supports else None
    canvas = Canvas.of(config.data)
    pictures = EpisodePictures(folder / "visualize", source, canvas, shown) if drawn else None
    if distributed.is_main():
        open_folder(folder, config, device)
        if pictures:
            pictures.clear()
    distributed.barrier()
    store = feature_store(model, source, config, device, supports=supports)
    out = evaluate(
        model, store, plans, len(source.classes), config.test.batch, config.test.label_size,
        on_episode=pictures.add if pictures else None, explain=explain,
    )  # fmt: skip
    result = {
        **measured(said, out, source),
        "head": whole("head", config.head).model_dump(mode="json"),
        "checkpoint": trained.told,
        "shots": {"train": trained.shots, "test": config.test.shots},
        **({"supports": supports_told} if supports_told else {}),
        "frozen_sha256": frozen_checksum(model),
        "precision": "bf16" if half else "fp32",
        "config": config.model_dump(mode="json"),
        "environment": environment(device),
    }
    if distributed.is_main():
        write_text(folder / NAME, episodes_text(scored(out, plans, source)))
        write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    distributed.barrier()
    if pictures and distributed.is_main():
        pictures.contact_sheet()
    return folder, result


def measured(said: dict[str, Any], out: Evaluation, source: Source) -> dict[str, Any]:
    """The part of a result that does not depend on what was tested: the protocol and the scores under it."""
    return {"protocol": said, "protocol_name": protocol_name(said), "scores": scores(out, source)}


def _folder_for(said: dict[str, Any], folder: Path) -> Path:
    """`folder`, or one beside it where it holds the result of another protocol, so that none is lost."""
    try:
        there = read_json(folder / "result.json", "a result")["protocol"]
    except (UserError, KeyError, TypeError):
        return folder
    if there == said:
        return folder
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return folder.with_name(f"{folder.name}_{digest[:8]}")


_SELECTION = {
    "best": "best checkpoint by novel classes, on a plan of its own",
    "last": "last checkpoint",
    "file": "a given file",
    "base": "nothing to select",
    "external": "external, by whoever trained it",
}


_SAMPLING = {
    "list": "query list in order, class at random among those that count, supports without repeats",
    "class": "class at random, then query and supports at random without repeats",
    "pair": "pairs of query and class in order, supports at random without repeats",
    "hsnet_pairs": "HSNet's draws over pairs, which come in order; supports may repeat; run r by seed + r",
    "hsnet_classes": "HSNet's draws over classes, class at random; supports may repeat; run r by seed + r",
}


def protocol(
    config: Config, source: Source, plans: list[list[Draw]], kind: str, sees_query_mask: bool = False
) -> dict[str, Any]:
    """All that must agree before two numbers may be compared; the last is the head's."""
    data, t, maker = config.data, config.test, maker_of(config)
    return {
        "data": data.name,
        "fold": data.fold,
        "folds": data.folds,
        "scheme": data.scheme,
        "trained_on": data.trained_on,
        "shots": t.shots,
        "runs": len(plans),
        "episodes": len(plans[0]) if t.plan else t.episodes,
        "seed": f"of a plan file, {seeds_hash(plans)[:12]}" if t.plan else t.seed,
        "sampling": "a plan file" if t.plan else _SAMPLING[t.sampling],
        "min_pixels": data.min_pixels,
        "small_classes": data.small_classes,
        "novel_in_training": data.novel_in_train,
        **_in_base(data),
        # These and the last ones are absent at their defaults, so that results older than such a field are of
        # the same protocol.
        **({} if data.boundary_in_train == "ignore" else {"boundary_in_training": data.boundary_in_train}),
        **({} if data.masks_name is None else {"train_masks": data.masks_name}),
        "image_size": data.size,
        # Absent where images are padded, so that results older than this field are of the same protocol.
        **({} if data.resize == "pad" else {"resize": data.resize}),
        "label_size": f"{data.size} px canvas" if t.label_size == "network" else "original",
        "selection": _SELECTION[kind] + (" and images" if data.select_list and kind == "best" else ""),
        "list_sha256": source.checksum,
        "published_list": source.published,
        "plan_sha256": plan_hash(plans, source),
        **({"support": describe(maker, t.seed)} if maker else {}),
        **({"query_label": "seen by the head"} if sees_query_mask else {}),
    }


def _in_base(data: DataConfig) -> dict[str, str]:
    """What held-out classes are in base training, where that is something else."""
    novel = data.for_base.novel_in_train
    return {} if novel == data.novel_in_train else {"novel_in_base_training": novel}


def scores(out: Evaluation, source: Source) -> dict[str, Any]:
    """Means over runs, in percent, with the 95% interval's half width, and the counts behind them."""
    runs = [run.compute() for run in out.runs]
    mious = [r.miou for r in runs]
    pooled = EpisodeScore(len(source.classes))
    for run in out.runs:
        pooled.totals += run.totals
    totals = pooled.compute().per_class
    name = lambda c: source.classes[c - 1]  # noqa: E731
    return {
        "miou": round(mean(mious), 4),
        "fb_iou": round(mean(r.fb_iou for r in runs), 4),
        "interval": _rounded(interval95(mious)),
        **{f"{part}_miou": _share(score) for part, score in out.parts.items()},
        "runs": [{"miou": round(r.miou, 4), "fb_iou": round(r.fb_iou, 4)} for r in runs],
        "per_class": {name(c): round(iou, 4) for c, iou in totals.items()},
        "unseen_classes": [name(c) for c in source.novel if c not in totals],
        "counts": {
            name(c): {"intersection": pooled.totals[c, 0].tolist(), "union": pooled.totals[c, 1].tolist()}
            for c in totals
        },
        "episodes_run": len(out.episodes),
        "notes": dict(out.notes),
    }


def scored(out: Evaluation, plans: list[list[Draw]], source: Source) -> list[Scored]:
    """Each episode's counts, with the names of its class and images."""
    names, every = source.index.names, []
    for run, number, inter, union in out.episodes:
        draw = plans[run][number]
        supports = tuple(names[i] for i in draw.supports)
        every.append(
            Scored(run, number, source.classes[draw.class_id - 1], names[draw.query], supports, inter, union)
        )
    return every


def _share(score: EpisodeScore) -> float | None:
    """The mIoU of a part of what was counted; None where it is empty."""
    computed = score.compute()
    return round(computed.miou, 4) if computed.per_class else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
