"""What the command line's verbs do, start to end, each a few calls long."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fss.config import Config, load_config
from fss.engine import distributed
from fss.engine.checkpoint import read
from fss.engine.convert import KINDS, convert
from fss.engine.precision import wants_half
from fss.engine.pretrain import pretrain
from fss.engine.run import base_folder, write_text
from fss.engine.test import test
from fss.engine.train import train
from fss.errors import UserError
from fss.heads import Head, find_head, head_options
from fss.report import tables
from fss.report.results import compare, make_rows, read_results
from fss.report.table import console_table


class Pictures(NamedTuple):
    """Which pictures a test draws: of its episodes, and of how the head comes to its answer."""

    visualize: bool = False
    explain: bool = False


def run_pretrain(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Stage 1."""
    _base(config, device)


def run_train(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """Stage 1 where it is missing, stage 2, and a test of what came out."""
    _check_head(config, pictures)
    if config.backbone.stage1 and not config.backbone.base:
        there = (base_folder(config) / "last.pt").is_file()
        _say(f"base network {'found' if there else 'missing, trained first'}: {base_folder(config)}")
        _base(config, device)
    folder = train(config, device, wants_half(config.precision, device))
    _say(f"stage 2: done -> {folder}" if folder else "stage 2: this head has nothing to learn")
    best = folder / f"{config.test.checkpoint}.pt" if folder else None
    run_test(config, device, best, pictures)


def _check_head(config: Config, pictures: Pictures) -> None:
    """What is wrong with a head, or with what is asked of it, should not wait for stage 1 to end."""
    head_options(config.head.type, config.head.options)
    if pictures.explain and find_head(config.head.type).explain is Head.explain:
        raise UserError(f"head {config.head.type!r} has no explain(); leave out --explain")


def _base(config: Config, device: torch.device) -> None:
    folder = pretrain(config, device, wants_half(config.precision, device))
    best = read(folder / "best.pt")["best"]
    _say(f"stage 1: base-class mIoU {best:.2f} -> {folder}")


def run_test(config: Config, device: torch.device, checkpoint: Path | None, pictures: Pictures) -> None:
    """A test, its table, and where everything lies."""
    _check_head(config, pictures)
    half = wants_half(config.precision, device)
    folder, result = test(config, device, half, checkpoint, pictures.visualize, pictures.explain)
    _say(f"\n{console_table(result)}\n\nresult:   {folder / 'result.json'}")
    if pictures.visualize or pictures.explain:
        _say(f"pictures: {folder / 'visualize'}, the best, median and worst in contact_sheet.jpg")


def run_convert(
    kind: str, inputs: Sequence[Path], out: Path, data: str, settings: Sequence[str], extra: Sequence[str]
) -> None:
    """Published weights into a checkpoint, and how to use it."""
    if kind not in KINDS:
        raise UserError(f"--kind {kind!r}; allowed: {', '.join(KINDS)}")
    config = load_config(data, "asgnet" if kind == "asgnet" else "cwt", settings, extra)
    about = convert(kind, inputs, out, config)
    what = f"ResNet-{about['layers']}, {about['stem']} stem"
    if kind == "backbone":
        print(f"{out}: {what}. Use it with backbone.weights={out}")
        return
    on = f"{about['data']} fold {about['fold']}"
    if kind == "cwt-base":
        print(
            f"{out}: base network, {what}, {on}. Use it with backbone.base={out} (and backbone.stage1=true)"
        )
        return
    said = [text for text in settings if not text.startswith(("data.fold=", "train.shots="))]
    if about["head"] == "asgnet":
        said.append(f"head.context={about['head_options']['context']}")
    run = f"{data} {about['shots']} [0] {about['layers']} {about['fold']} --head {about['head']}"
    print(f"{out}: {about['head']}, {what}, {on}, {about['shots']} shot(s). Try it with")
    print(" ".join([f"  sh scripts/test.sh {run} --checkpoint {out}", *said]))


def run_report(paths: Sequence[Path], out: Path | None, compared: bool) -> None:
    """A table of results, or the paired difference of two."""
    kind = tables.format_of(out) if out else ".md"
    results = read_results(paths)
    if compared:
        if len(results) != 2:
            raise UserError(f"--compare takes two results, got {len(results)}")
        first, second = results
        print(tables.comparison_text(first, second, compare(first, second)))
        return
    text = tables.FORMATS[kind](make_rows(results), results)
    if out:
        write_text(out, text)
        print(f"{len(results)} results -> {out}")
    else:
        print(text, end="")


def _say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)


VERBS: dict[str, Callable[..., None]] = {"pretrain": run_pretrain, "train": run_train, "test": run_test}
