"""The work of `fss pseudo-label` from start to end."""

from typing import Any

import torch

from fss.config import Config
from fss.l2g.masks import Written, write_pseudo
from fss.l2g.train import train_pseudo
from fss.runs import distributed
from fss.runs.checkpoint import read
from fss.runs.precision import wants_half


def run_pseudo_label(what: str, config: Config, device: torch.device) -> None:
    """Train the networks and write their masks ("train"), or write alone ("write"); then their quality."""
    half = wants_half(config.precision, device)
    if what == "train":
        folder = train_pseudo(config, device, half)
        if distributed.is_main():
            facts = read(folder / "last.pt")["facts"]
            print(f"trained: {facts['steps']} steps, {facts['seconds']:.0f} s -> {folder}", flush=True)
    written = write_pseudo(config, device, half)
    if distributed.is_main():
        print(written_text(written, config))


def written_text(written: Written, config: Config) -> str:
    """Print the written masks, their quality if true masks are there, and the next command."""
    lines = [f"{written.images} pseudo-masks, {written.kept} of them there before -> {written.folder}"]
    if config.pseudo.pictures:
        lines.append(f"pictures of responses: {written.folder / 'responses'}")
    if written.rows:
        lines += ["", quality_table(written.rows, config.pseudo.background), ""]
    where = "pseudo" if config.data.train_masks in ("true", "pseudo") else config.data.train_masks
    lines.append(f"train on them with data.train_masks={where}")
    return "\n".join(lines)


def quality_table(rows: list[dict[str, Any]], chosen: float) -> str:
    """Scores against true masks over background thresholds; that of the masks as written is marked."""
    shown = lambda x: "     -" if x is None else f"{x:6.2f}"  # noqa: E731
    lines = ["background   mIoU of base classes   and with background"]
    for r in rows:
        mark = "  <- as written" if r["background"] == chosen else ""
        lines.append(
            f"{r['background']:10.2f}   {shown(r['miou']):>20}   {shown(r['miou_with_background']):>19}{mark}"
        )
    return "\n".join(lines)
