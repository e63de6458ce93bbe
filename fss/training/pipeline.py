"""The work of the command line's verbs from start to end, each a few calls long."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fss.config import Config
from fss.errors import UserError
from fss.heads import Head
from fss.recipes import validate
from fss.report import tables
from fss.report.results import make_rows, read_results
from fss.report.table import console_table, one_line
from fss.runs import distributed
from fss.runs.checkpoint import read
from fss.runs.folders import base_folder, fold_folder, train_folder
from fss.runs.identity import whole
from fss.runs.models import head_on_empty_network, learns
from fss.runs.precision import wants_half
from fss.testing.test import test
from fss.training.base import pretrain
from fss.training.heads import check_classes, train
from fss.writing import write_text


class Pictures(NamedTuple):
    """The pictures that a test draws: of its episodes, and of how the head comes to its answer."""

    visualize: bool = False
    explain: bool = False


def run_pretrain(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Base training alone."""
    _base(config, device)


def run_train(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Base training where it is missing, training on episodes, and a test of the result."""
    _check_head(config, pictures)
    check_classes(config)
    if config.network == "base":
        there = (base_folder(config) / "last.pt").is_file()
        _say(f"base network {'found' if there else 'missing, trained first'}: {base_folder(config)}")
        _base(config, device)
    folder = train(config, device, wants_half(config.precision, device))
    _say(
        f"{config.head.type}: trained -> {folder}" if folder else f"{config.head.type}: has nothing to learn"
    )
    _test(config, device, folder, pictures)


def _check_head(config: Config, pictures: Pictures) -> None:
    """Make all parts once, without memory, so that an error in one is told before base training."""
    head = head_on_empty_network(config)
    aligned = config.with_neck and whole("neck", config.neck).options.get("align", False)
    if pictures.explain and not aligned and type(head).explain is Head.explain:
        raise UserError(f"head {config.head.type!r} has no explain(); leave out --explain")


def _base(config: Config, device: torch.device) -> None:
    folder = pretrain(config, device, wants_half(config.precision, device))
    content = read(folder / "best.pt")
    band = content["facts"].get("base_boundary_miou")  # a checkpoint of before has no such score
    near = "" if band is None else f", {band:.2f} within 3 pixels of boundaries"
    _say(f"base training: base-class mIoU {content['best']:.2f}{near} -> {folder}")


def run_test(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """A test of a given checkpoint, or of those that training left, and where everything lies."""
    _check_head(config, pictures)
    if checkpoint:
        _test_one(config, device, checkpoint, pictures)
    else:
        _test(config, device, None, pictures)


def _test(config: Config, device: torch.device, folder: Path | None, pictures: Pictures) -> None:
    """Best and last checkpoint, or what the settings name; of `folder`, else wherever training left them."""
    first, *others = _each_checkpoint(config)
    _test_one(first, device, folder / f"{first.test.checkpoint}.pt" if folder else None, pictures)
    for other in others:
        path = folder / f"{other.test.checkpoint}.pt" if folder else None
        _test_one(other, device, path, Pictures(), brief=True)


def _each_checkpoint(config: Config) -> list[Config]:
    """The settings, once for each checkpoint that is to be tested."""
    if config.test.checkpoint != "both":
        return [config]
    kinds = ("best", "last") if learns(config) else ("best",)
    tests = [config.test.model_copy(update={"checkpoint": kind}) for kind in kinds]
    return [config.model_copy(update={"test": test}) for test in tests]


def _test_one(
    config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures, brief: bool = False
) -> None:
    half = wants_half(config.precision, device)
    folder, result = test(config, device, half, checkpoint, pictures.visualize, pictures.explain)
    if brief:
        _say(f"{one_line(result)}\nresult:   {folder / 'result.json'}")
    else:
        _say(f"\n{console_table(result)}\n\nresult:   {folder / 'result.json'}")
    if pictures.visualize or pictures.explain:
        _say(f"pictures: {folder / 'visualize'}, an overview in contact_sheet.jpg")


def run_folds(configs: Sequence[Config], device: torch.device, pictures: Pictures) -> None:
    """Train and test every fold, then their table; folds that are done already are left as they are."""
    for config in configs:
        found = [_finished(c) for c in _each_checkpoint(config)]
        other = config.data.trained_on  # a cross-domain set has nothing to train
        done = all(found) and not any(pictures)
        what = f"done -> {found[0]}" if done else "tests" if other else "trains and tests"
        _say(f"fold {config.data.fold}: {what}")
        if not done:
            (run_test if other else run_train)(config, device, None, pictures)
    if distributed.is_main():
        every = [_finished(c) for config in configs for c in _each_checkpoint(config)]
        results = read_results([path for path in every if path])
        table = tables.markdown(make_rows(results), results)
        some = configs[0]
        out = some.output / some.data.name / f"{train_folder(some).name}_{some.test.shots}shot_test.md"
        write_text(out, table)
        print(f"\n{table}\ntable: {out}")


def _finished(config: Config) -> Path | None:
    """The result of a test with exactly these settings, if there is one."""
    for path in sorted(fold_folder(config).glob("*/test_*/result.json")):
        try:
            found = read_results([path])[0].content
            # Settings are compared, not texts: a result older than some setting has it at its default.
            if found["head"]["type"] == config.head.type and _same(validate(found["config"]), config):
                return path
        except UserError:  # another head's damaged result is no obstacle
            continue
    return None


def _same(one: Config, other: Config) -> bool:
    """Whether two configurations ask for one result: parts with all their options, memory left aside."""
    return _compared(one) == _compared(other)


def _compared(config: Config) -> dict[str, Any]:
    parts = {name: whole(name, getattr(config, name)) for name in ("backbone", "neck", "head")}
    settings = config.model_dump(exclude={*parts, "cache_gib"})
    return {**settings, **parts, "weights": config.backbone.weights}


def _say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)


VERBS: dict[str, Callable[..., None]] = {"pretrain": run_pretrain, "train": run_train, "test": run_test}
