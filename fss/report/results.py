"""Reads result files and makes rows of one table; results on different protocols are refused."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import ValidationError

from fss.errors import UserError, rule
from fss.metrics import interval95
from fss.reading import read_json
from fss.report.content import Content
from fss.report.protocol import FREE, protocol_id
from fss.report.recipe import labels, recipe_of
from fss.report.versions import one_spelling


@dataclass(frozen=True)
class Result:
    """One `result.json`; `content` is what the file holds, in the spelling of its version."""

    path: Path
    content: dict[str, Any]

    @cached_property
    def modern(self) -> dict[str, Any]:
        """The content in today's spelling, which is what tables and pages read."""
        return one_spelling(self.content)

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that must agree before two scores may be compared."""
        return dict(self.modern["protocol"])

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was tested: "best", "last", "file", "external" (trained elsewhere), or ""
        if there was nothing to choose from."""
        first = re.split(r"\W", str(self.protocol.get("selection", "")))[0]
        return {"a": "file"}.get(first, first if first in ("best", "last", "external") else "")

    @property
    def runs(self) -> list[float]:
        """The mIoU of every run, percent."""
        return [float(run["miou"]) for run in self.modern["scores"]["runs"]]


@dataclass(frozen=True)
class Number:
    """A mean and half its 95% interval (None for a single run), percent."""

    mean: float
    interval: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.interval is None else f"{self.mean:.1f} ± {self.interval:.1f}"


@dataclass(frozen=True)
class Row:
    """One training recipe with one number of test shots, over the folds that were measured.

    Attributes:
        label: the head, with what tells it from others of its kind: options, network, training.
        checkpoint: as of `Result.checkpoint`.
        trained: shots in training; None if nothing was trained on episodes.
        tested: shots in testing.
        folds: fold -> mIoU.
        miou, fb_iou: over all folds; None unless every fold is there.
        networks: fold -> checksum of the frozen network.
        results: fold -> what the row was made from.
    """

    label: str
    checkpoint: str
    trained: int | None
    tested: int
    folds: dict[int, Number]
    miou: Number | None
    fb_iou: float | None
    networks: dict[int, str]
    results: dict[int, Result]


def read_results(paths: Iterable[Path]) -> list[Result]:
    """The results at `paths`: files, or folders, searched for `result.json`, else with .json of any name.

    Raises:
        UserError: a path without results, or a file that is no result.
    """
    found: dict[Path, Result] = {}
    for path in paths:
        files = sorted(path.rglob("result.json")) or sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"no result.json below {path}, nor other .json in it; a test writes one")
        found |= {file.resolve(): _read(file) for file in files}
    return list(found.values())


def _read(path: Path) -> Result:
    content = read_json(path, "a result")
    try:
        Content.model_validate(one_spelling(content) if isinstance(content, dict) else content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is no result of a test: {where}: {rule(first)}") from None
    return Result(path, content)


def make_rows(results: Sequence[Result]) -> list[Row]:
    """One row per training recipe (`recipe_of`), checkpoint and shots; fewest shots first, then by label.

    Raises:
        UserError: protocols or plans that differ (named, with their files), or two results for one cell.
    """
    check_comparable(results)
    recipes = [recipe_of(r.modern) for r in results]
    if len({r.protocol["fold"] == -1 for r in results}) > 1:
        raise UserError("results over every class (fold -1) and over folds must not share a table")
    cells: dict[tuple[str, str, str, int | None, int], dict[int, Result]] = {}
    for result, recipe, label in zip(results, recipes, labels(recipes), strict=True):
        shots, fold = result.modern["shots"], result.protocol["fold"]
        key = (json.dumps(recipe, sort_keys=True), label, result.checkpoint, shots["train"], shots["test"])
        row = cells.setdefault(key, {})
        if fold in row:
            raise UserError(
                f"two results for {label}, fold {fold}, {shots['test']} shot(s): {row[fold].path} and "
                f"{result.path}; name the one that counts"
            )
        row[fold] = result
    rows = [_row(*key[1:], folds) for key, folds in cells.items()]
    return sorted(rows, key=lambda r: (r.tested, r.label, r.trained or 0, r.checkpoint))


def check_comparable(results: Sequence[Result]) -> None:
    """`UserError` with each field of the protocol in which results differ, its values and their files."""
    problems = [
        _difference(key, results) for key in sorted({k for r in results for k in r.protocol} - set(FREE))
    ]
    for fold, shots in sorted({(r.protocol["fold"], r.protocol["shots"]) for r in results}):
        same = [r for r in results if (r.protocol["fold"], r.protocol["shots"]) == (fold, shots)]
        problems.append(_difference("plan_sha256", same, f" in fold {fold} with {shots} shot(s)"))
    found = [p for p in problems if p]
    if found:
        raise UserError(
            "these results stand on different protocols and must not share a table; name those that belong "
            "together:\n" + "\n".join([*found, _alike(results)])
        )


def _alike(results: Sequence[Result]) -> str:
    """The command that reports all results of the first one's protocol; `fold*` stands for its folds."""
    plans: dict[tuple[int, int], str] = {}
    names: dict[str, None] = {}
    for r in (r for r in results if protocol_id(r.protocol) == protocol_id(results[0].protocol)):
        p = r.protocol
        if plans.setdefault((p["fold"], p["shots"]), p["plan_sha256"]) == p["plan_sha256"]:
            names[re.sub(r"\bfold\d+\b", "fold*", str(r.path))] = None
    return f"Such as: fss report {' '.join(names)}"


def _difference(key: str, results: Sequence[Result], where: str = "") -> str:
    files: dict[str, Path] = {}
    for result in results:
        files.setdefault(json.dumps(result.protocol.get(key)), result.path)
    if len(files) < 2:
        return ""
    return f"  {key}{where}: " + "; ".join(f"{value[:40]} ({path})" for value, path in files.items())


def _row(label: str, checkpoint: str, trained: int | None, tested: int, folds: dict[int, Result]) -> Row:
    some = next(iter(folds.values())).protocol
    wanted = [-1] if some["fold"] == -1 else range(some["folds"])
    whole = all(fold in folds for fold in wanted)
    per_run = [mean(runs) for runs in zip(*(r.runs for r in folds.values()), strict=True)]
    return Row(
        label=label,
        checkpoint=checkpoint,
        trained=trained,
        tested=tested,
        folds={f: Number(mean(r.runs), interval95(r.runs)) for f, r in sorted(folds.items())},
        miou=Number(mean(per_run), interval95(per_run)) if whole else None,
        fb_iou=mean(r.modern["scores"]["fb_iou"] for r in folds.values()) if whole else None,
        networks={f: r.modern["frozen_sha256"] for f, r in folds.items()},
        results=dict(sorted(folds.items())),
    )


@dataclass(frozen=True)
class Comparison:
    """Differences on the same episodes, second less first, in percent points."""

    miou: Number
    per_class: dict[str, float]


def compare(first: Result, second: Result) -> Comparison:
    """The paired difference of two results on one plan.

    Raises:
        UserError: their protocols or plans differ.
    """
    check_comparable([first, second])
    if first.protocol["plan_sha256"] != second.protocol["plan_sha256"]:
        raise UserError(f"{first.path} and {second.path} are of different folds or shots; nothing to pair")
    differences = [b - a for a, b in zip(first.runs, second.runs, strict=True)]
    a, b = (r.modern["scores"]["per_class"] for r in (first, second))
    both = {c: b[c] - a[c] for c in a if c in b}
    return Comparison(Number(mean(differences), interval95(differences)), both)
