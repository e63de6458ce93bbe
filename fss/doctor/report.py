"""The findings as text for people and as JSON for reports of bugs, and proposals for what to do next."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import fss
from fss.doctor.files import files
from fss.doctor.item import FATAL, Item
from fss.doctor.machine import machine
from fss.doctor.packages import packages

TRIAL = (
    "fss train --data shapes --layers 18 output=trial pretrain.seconds=20 train.seconds=10 "
    "test.runs=1 test.episodes=10"
)
PREDICT = "fss predict --support cat.jpg cat_mask.png --query photos --out predicted"
PREPARE = "fss prepare folder --root my_photos --from labelme_files"
Steps = list[tuple[str, str]]


def examine(output: Path) -> list[Item]:
    """The items of all checks; `output` is the folder for results."""
    return [*packages(), *machine(), *files(output)]


def fatal(items: Sequence[Item]) -> list[str]:
    """Names of things that are missing or broken and that fss needs."""
    return [item.name for item in items if item.state in FATAL]


def next_steps(items: Sequence[Item]) -> Steps:
    """Pairs of command and purpose that work as things are, or that mend what is broken."""
    broken = [item for item in items if item.state in FATAL]
    if broken:
        fixes = dict.fromkeys(item.fix for item in broken if item.fix)
        return [*((fix, "mends what is needed") for fix in fixes), ("fss doctor", "looks again")]
    steps = [
        (TRIAL, "learns and tests in a minute or two"),
        ("fss report trial", "its numbers as a table"),
        ("fss train --data shapes", "the same at full length, under ten minutes"),
    ]
    fit = {item[:2] for item in items if item.state == "ok"}
    weights = "" if ("weights", "resnet50") in fit else " backbone.weights=download"
    for name in ("pascal", "coco"):
        if ("data", name) in fit:
            steps.append((f"fss train --data {name} --fold 0{weights}", "a published benchmark"))
    steps.append((PREDICT, "segments your own photos, after one with its mask"))
    if ("packages", "[demo]") in fit:
        steps.append(("fss demo", "the same on a page in the browser"))
    return [*steps, (PREPARE, "makes a data set of your own annotations")]


def as_text(items: Sequence[Item], steps: Steps) -> str:
    """Text with a line for each item, by section, and the next steps."""
    lines = [f"fss {fss.__version__}"]
    wide = max(len(item.name) for item in items)
    for section, group in groupby(items, key=lambda item: item.section):
        lines += ["", section]
        for item in group:
            fix = f"  -> {item.fix}" if item.fix else ""
            lines.append(f"  {item.state:<8}  {item.name:<{wide}}  {item.detail}{fix}")
    lines += ["", "what to do next"]
    return "\n".join([*lines, *(f"  {command}\n      # {why}" for command, why in steps)])


def as_json(items: Sequence[Item], steps: Steps) -> str:
    """JSON with the same content, for a report of a bug."""
    content = {
        "fss": fss.__version__,
        "ok": not fatal(items),
        "items": [item._asdict() for item in items],
        "next": [command for command, _ in steps],
    }
    return json.dumps(content, indent=2)
