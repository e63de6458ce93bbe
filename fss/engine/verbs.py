"""What the command line's verbs do, start to end, each a few calls long."""

from collections.abc import Callable
from pathlib import Path

import torch

from fss.config import Config
from fss.engine import distributed
from fss.engine.checkpoint import read
from fss.engine.precision import wants_half
from fss.engine.pretrain import pretrain
from fss.engine.run import base_folder
from fss.engine.test import test
from fss.engine.train import train
from fss.errors import UserError
from fss.report.table import console_table


def run_pretrain(config: Config, device: torch.device, checkpoint: Path | None, visualize: bool) -> None:
    """Stage 1."""
    if checkpoint or visualize:
        raise UserError("--checkpoint and --visualize belong to `fss test`")
    _base(config, device)


def run_train(config: Config, device: torch.device, checkpoint: Path | None, visualize: bool) -> None:
    """Stage 1 where it is missing, stage 2, and a test of what came out."""
    if checkpoint:
        raise UserError("--checkpoint belongs to `fss test`; training takes up its own folder by itself")
    there = (base_folder(config) / "last.pt").is_file()
    _say(f"base network {'found' if there else 'missing, trained first'}: {base_folder(config)}")
    _base(config, device)
    folder = train(config, device, wants_half(config.precision, device))
    _say(f"stage 2: done -> {folder}" if folder else "stage 2: this head has nothing to learn")
    best = folder / f"{config.test.checkpoint}.pt" if folder else None
    run_test(config, device, best, visualize)


def _base(config: Config, device: torch.device) -> None:
    folder = pretrain(config, device, wants_half(config.precision, device))
    best = read(folder / "best.pt")["best"]
    _say(f"stage 1: base-class mIoU {best:.2f} -> {folder}")


def run_test(config: Config, device: torch.device, checkpoint: Path | None, visualize: bool) -> None:
    """A test, its table, and where everything lies."""
    folder, result = test(config, device, wants_half(config.precision, device), checkpoint, visualize)
    _say(f"\n{console_table(result)}\n\nresult:   {folder / 'result.json'}")
    if visualize:
        _say(f"pictures: {folder / 'visualize'}, the best, median and worst in contact_sheet.jpg")


def _say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)


VERBS: dict[str, Callable[..., None]] = {"pretrain": run_pretrain, "train": run_train, "test": run_test}
