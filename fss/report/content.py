"""What a `result.json` must hold: the fields that tables and pages read, and that its scores are those of
its counts."""

from statistics import mean
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fss.metrics import interval95


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


Percent = Annotated[float, Field(ge=0, le=100)]
_Positive = Annotated[int, Field(ge=1, lt=2**53)]
_Pixels = Annotated[int, Field(ge=0, lt=2**63)]
_Sides = Annotated[list[_Pixels], Field(min_length=2, max_length=2)]  # background, foreground


class _Run(_Part):
    miou: Percent
    fb_iou: Percent | None = None


class _Supports(_Part):
    kind: str
    method: str
    miou_with_truth: float | None = None


class _Protocol(_Part):
    data: str
    fold: int = Field(ge=-1)
    folds: _Positive
    shots: _Positive
    runs: _Positive
    episodes: _Positive
    seed: int | str | None
    label_size: str
    plan_sha256: str
    published_list: bool | None
    support: _Supports | None = None


class _Counts(_Part):
    intersection: _Sides
    union: _Sides


class _Scores(_Part):
    miou: Percent | None = None
    fb_iou: Percent
    boundary_miou: Percent | None = None
    small_miou: Percent | None = None
    large_miou: Percent | None = None
    interval: Annotated[float, Field(ge=0)] | None = None
    runs: list[_Run] = Field(min_length=1)
    per_class: dict[str, Percent] = Field(min_length=1)
    counts: dict[str, _Counts] = {}
    notes: dict[str, int] = {}
    unseen_classes: list[str] = []
    episodes_run: int | None = None


class _Head(_Part):
    type: str


class _Shots(_Part):
    train: int | None
    test: int


class Content(_Part):
    """A result in today's spelling; fields that nothing reads are not checked."""

    protocol: _Protocol
    scores: _Scores
    head: _Head
    shots: _Shots
    config: dict[str, Any]
    frozen_sha256: str
    precision: str | None = None
    checkpoint: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    supports: _Supports | None = None

    @model_validator(mode="after")
    def _agree(self) -> "Content":
        protocol, scores = self.protocol, self.scores
        if len(scores.runs) != protocol.runs:
            raise ValueError(f"{len(scores.runs)} runs, where the protocol says {protocol.runs}")
        if protocol.fold >= protocol.folds:
            raise ValueError(f"fold {protocol.fold} of {protocol.folds} does not exist")
        planned = protocol.runs * protocol.episodes
        if scores.episodes_run not in (None, planned):
            raise ValueError(f"{scores.episodes_run} episodes, where the protocol says {planned}")
        _check_counts(scores)
        _check_means(scores, protocol.episodes)
        return self


def _check_counts(scores: _Scores) -> None:
    """Each class's IoU is its intersection over its union."""
    if not scores.counts:  # results of 0.1 need not have them
        return
    for name in scores.per_class.keys() ^ scores.counts.keys():
        raise ValueError(f"class {name[:40]!r} has an IoU or counts, but not both")
    for name, iou in scores.per_class.items():
        inter, union = scores.counts[name].intersection, scores.counts[name].union
        if any(i > u for i, u in zip(inter, union, strict=True)) or not union[1]:
            raise ValueError(f"class {name[:40]!r} has an intersection larger than its union, or no union")
        _check_near(f"the IoU of class {name[:40]!r}", iou, 100 * inter[1] / union[1], "its counts give")


def _check_means(scores: _Scores, episodes: int) -> None:
    """The means are those of the runs, and the runs are near what the classes give over all of them.

    A single run is equal to its classes. The mean over several differs from the classes' counts over all
    runs, which weigh large objects and runs more; by 0.65 points at most in what was measured with 30
    episodes of a class in a run, and by the less, the more there are; a class may be far rarer than others.
    """
    ious = [run.miou for run in scores.runs]
    if scores.miou is not None:
        _check_near("miou", scores.miou, mean(ious), "its runs give")
    half = interval95(ious)
    if scores.interval is not None and half is not None:
        _check_near("interval", scores.interval, half, "its runs give", 5e-3)
    slack = _ROUNDED if len(ious) == 1 else max(2.0, 100 * len(scores.per_class) / episodes)
    _check_near("miou", mean(ious), mean(scores.per_class.values()), "its classes give", slack)
    sides = [run.fb_iou for run in scores.runs if run.fb_iou is not None]
    if len(sides) == len(ious):
        _check_near("fb_iou", scores.fb_iou, mean(sides), "its runs give")
    if scores.counts:
        _check_near("fb_iou", scores.fb_iou, _both_sides(scores.counts), "its counts give", slack)


def _both_sides(counts: dict[str, _Counts]) -> float:
    """The mean IoU of background and foreground over all classes, percent; a side never seen is left out."""
    ious = []
    for side in (0, 1):
        union = sum(c.union[side] for c in counts.values())
        if union:
            ious.append(100 * sum(c.intersection[side] for c in counts.values()) / union)
    return mean(ious)


_ROUNDED = 1e-3  # numbers are written with four digits


def _check_near(what: str, said: float, given: float, by: str, slack: float = _ROUNDED) -> None:
    if abs(said - given) > slack:
        raise ValueError(f"{what} is {said:.4f}, where {by} {given:.4f}; test again")
