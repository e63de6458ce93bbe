"""Reads the log of a training, from which learning curves are drawn."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple, TypeGuard

from fss.errors import UserError
from fss.report.results import Result

_VAST = 1e15  # larger numbers, and those that are not finite, are left out of curves
_LINE = 1 << 16  # letters of a line that are read at once; ours have some hundred
_MOST = 60  # points of a curve, because more would be noise


@dataclass(frozen=True)
class Training:
    """A log: losses and validations by step; validations in percent."""

    losses: list[tuple[int, float]]
    validations: list[tuple[int, float]]


class Stretch(NamedTuple):
    """Steps that share one point of a curve: the middle one, and their lowest, mean and highest value."""

    step: float
    low: float
    mean: float
    high: float


def log_of(result: Result) -> Path | None:
    """The log of the training behind a result: beside the result, or in the folder above."""
    folder = result.path.resolve().parent
    return next((p for f in (folder, folder.parent) if (p := f / "log.jsonl").is_file()), None)


def read_log(path: Path) -> Training:
    """Losses and validations of a `log.jsonl`; lines that are damaged or not finite are skipped.

    Raises:
        UserError: the file cannot be read.
    """
    training = Training([], [])
    for line in _lines(path):
        for key, points in (("total", training.losses), ("validation", training.validations)):
            step, value = line.get("step"), line.get(key)
            if is_step(step) and isinstance(value, float | int) and abs(value) < _VAST:
                points.append((step, float(value)))
    return training


def is_step(value: object) -> TypeGuard[int]:
    """Whether `value` can be the number of a step; damaged files hold other things in its place."""
    return isinstance(value, int) and 0 <= value < 2**53


def _lines(path: Path) -> Iterator[dict[str, object]]:
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(_LINE):
                content = _content(line)
                if isinstance(content, dict):
                    yield content
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"log {path} cannot be read ({error})") from None


def _content(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def stretches(points: Sequence[tuple[int, float]], most: int = _MOST) -> list[Stretch]:
    """A long curve in at most `most` stretches of equally many steps."""
    size = max(1, -(-len(points) // most))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        Stretch(mean(s for s, _ in p), min(v for _, v in p), mean(v for _, v in p), max(v for _, v in p))
        for p in parts
    ]
