"""Reads result files and makes rows of one table; results on different protocols are refused."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fss.errors import UserError
from fss.heads import HEADS
from fss.metrics import interval95
from fss.report.protocol import FREE
from fss.report.versions import defaults_of, network_of, one_spelling


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
    """One head with one number of test shots, over the folds that were measured.

    Attributes:
        label: the head, with the options in which it differs from others of its kind.
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


class _Run(_Part):
    miou: float


class _Supports(_Part):
    kind: str
    method: str
    miou_with_truth: float | None = None


class _Protocol(_Part):
    data: str
    fold: int = Field(ge=-1)
    folds: int = Field(ge=1)
    shots: int
    runs: int
    episodes: int
    seed: int | str | None
    label_size: str
    plan_sha256: str
    published_list: bool | None
    support: _Supports | None = None


_Sides = Annotated[list[int], Field(min_length=2, max_length=2)]  # background, foreground


class _Counts(_Part):
    intersection: _Sides
    union: _Sides


class _Scores(_Part):
    runs: list[_Run] = Field(min_length=1)
    fb_iou: float
    per_class: dict[str, float] = Field(min_length=1)
    counts: dict[str, _Counts] = {}
    notes: dict[str, int] = {}
    unseen_classes: list[str] = []


class _Head(_Part):
    type: str


class _Shots(_Part):
    train: int | None
    test: int


class _Content(_Part):
    """The fields that tables and pages read; other fields are not checked."""

    protocol: _Protocol
    scores: _Scores
    head: _Head
    shots: _Shots
    config: dict[str, Any]
    frozen_sha256: str
    checkpoint: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    supports: _Supports | None = None

    @model_validator(mode="after")
    def _agree(self) -> "_Content":
        if len(self.scores.runs) != self.protocol.runs:
            raise ValueError(f"{len(self.scores.runs)} runs, where the protocol says {self.protocol.runs}")
        if self.protocol.fold >= self.protocol.folds:
            raise ValueError(f"fold {self.protocol.fold} of {self.protocol.folds} does not exist")
        return self


def _read(path: Path) -> Result:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _Content.model_validate(one_spelling(content) if isinstance(content, dict) else content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is no result of a test: {where}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a result ({error})") from None
    return Result(path, content)


def make_rows(results: Sequence[Result]) -> list[Row]:
    """One row per head, options, tag, checkpoint and shots; fewest shots first, then the order of the labels.

    Raises:
        UserError: protocols or plans that differ (named, with their files), or two results for one cell.
    """
    check_comparable(results)
    labels = _labels(results)
    if len({r.protocol["fold"] == -1 for r in results}) > 1:
        raise UserError("results over every class (fold -1) and over folds must not share a table")
    cells: dict[tuple[str, str, int | None, int], dict[int, Result]] = {}
    for result, label in zip(results, labels, strict=True):
        shots, fold = result.modern["shots"], result.protocol["fold"]
        row = cells.setdefault((label, result.checkpoint, shots["train"], shots["test"]), {})
        if fold in row:
            raise UserError(
                f"two results for {label}, fold {fold}, {shots['test']} shot(s): {row[fold].path} and "
                f"{result.path}; name the one that counts"
            )
        row[fold] = result
    rows = [_row(*key, folds) for key, folds in cells.items()]
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
            "together:\n" + "\n".join(found)
        )


def _difference(key: str, results: Sequence[Result], where: str = "") -> str:
    files: dict[str, Path] = {}
    for result in results:
        files.setdefault(json.dumps(result.protocol.get(key)), result.path)
    if len(files) < 2:
        return ""
    return f"  {key}{where}: " + "; ".join(f"{value[:40]} ({path})" for value, path in files.items())


def _labels(results: Sequence[Result]) -> list[str]:
    """Names of heads, with their tags and with the options and networks in which heads of one name differ."""
    options = [_options(r.modern) for r in results]
    labels = []
    for result, own in zip(results, options, strict=True):
        differ = [k for k in own if len({json.dumps(o.get(k)) for o in _kin(k, own, options)}) > 1]
        tag = result.modern["config"].get("tag")
        name = own["type"].rpartition(":")[2]
        labels.append(" ".join([name, *(f"{k}={own[k]}" for k in differ), *([f"({tag})"] if tag else [])]))
    return labels


def _options(content: dict[str, Any]) -> dict[str, Any]:
    """A head's type, its options (newer ones at their defaults), and those of its network."""
    return {**defaults_of(content["head"], HEADS), **content["head"], **network_of(content)}


def _kin(key: str, own: dict[str, Any], every: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results in which `key` means the same: those of one head and, for an option of a part, of that part."""
    part, dot, _ = key.partition(".")
    same = {"type", f"{part}.type"} - {key} if dot else {"type"}
    return [o for o in every if all(o.get(k) == own.get(k) for k in same)]


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
