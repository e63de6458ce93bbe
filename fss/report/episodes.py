"""Writes and reads `episodes.csv`, the file beside `result.json` that holds the counts of every episode."""

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.errors import UserError
from fss.metrics import interval95
from fss.report.results import Result
from fss.writing import csv_cell, from_csv_cell

NAME = "episodes.csv"


@dataclass(frozen=True)
class Scored:
    """One tested episode.

    Attributes:
        run, number: its place in the plan, both from 0.
        query, supports: the images' names.
        intersection, union: of the foreground, in pixels.
    """

    run: int
    number: int
    class_name: str
    query: str
    supports: tuple[str, ...]
    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """IoU in percent; 0 if both query and prediction are empty."""
        return 100 * self.intersection / max(1, self.union)


def episodes_text(episodes: Sequence[Scored]) -> str:
    """The text of `episodes.csv`: one line for each episode, one column for each support.

    The columns: run, number, class, query, support_1 to support_K, intersection, union, iou.
    """
    shots = len(episodes[0].supports)
    heads = ["run", "number", "class", "query", *(f"support_{k + 1}" for k in range(shots))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*heads, "intersection", "union", "iou"])
    for e in episodes:
        place = (e.run, e.number, *map(csv_cell, (e.class_name, e.query, *e.supports)))
        writer.writerow([*place, e.intersection, e.union, f"{e.iou:.4f}"])
    return out.getvalue()


def read_episodes(path: Path, most: int | None = None) -> list[Scored]:
    """The episodes that `episodes_text` wrote, `most` of them.

    Raises:
        UserError: no such file, or a line that is none of ours; names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            return [_scored(line, path, lines.line_num) for line in itertools.islice(lines, most)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def _scored(line: dict[str, Any], path: Path, number: int) -> Scored:
    try:
        supports = [v for k, v in line.items() if k is not None and k.startswith("support_")]
        run, place, inter, union = (int(line[k]) for k in ("run", "number", "intersection", "union"))
        texts = (line["class"], line["query"], *supports)
        if None in line or None in texts:  # the line has too many cells, or too few
            raise ValueError
        name, query, *supports = map(from_csv_cell, texts)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} line {number} is no episode; test again, or take the file away") from None
    return Scored(run, place, name, query, tuple(supports), inter, union)


def episodes_of(result: Result) -> tuple[list[Scored], str]:
    """The episodes beside a result, or none and the reason: there is no file, or it belongs to another test.

    Raises:
        UserError: the file cannot be read.
    """
    path = result.path.with_name(NAME)
    if not path.is_file():
        return [], f"no {NAME} beside it (tests of earlier versions wrote none)"
    p = result.protocol
    wanted = p["runs"] * p["episodes"]
    episodes = read_episodes(path, wanted + 1)
    # A result may say any number of episodes, so places are made for those alone that are there.
    planned = [divmod(i, p["episodes"]) for i in range(len(episodes))]
    if (
        len(episodes) != wanted
        or [(e.run, e.number) for e in episodes] != planned
        or _sums(episodes) != _counts(result)
    ):
        return [], f"the {NAME} beside it does not add up to it, and must be of another test"
    return episodes, ""


def _sums(episodes: Sequence[Scored]) -> dict[str, tuple[int, int]]:
    """Intersection and union of each class over all runs."""
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for e in episodes:
        inter, union = sums[e.class_name]
        sums[e.class_name] = inter + e.intersection, union + e.union
    return {name: both for name, both in sums.items() if both[1]}


def _counts(result: Result) -> dict[str, tuple[int, int]]:
    """Intersection and union of each class, as the result tells them."""
    counts = result.modern["scores"].get("counts", {})
    return {name: (c["intersection"][1], c["union"][1]) for name, c in counts.items()}


def class_intervals(episodes: Sequence[Scored]) -> dict[str, float]:
    """Half the 95% interval over runs of each class's IoU, percent; none for a class of one run alone."""
    sums: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for e in episodes:
        sums[e.class_name, e.run][0] += e.intersection
        sums[e.class_name, e.run][1] += e.union
    ious: dict[str, list[float]] = defaultdict(list)
    for (name, _), (inter, union) in sorted(sums.items()):
        if union:
            ious[name].append(100 * inter / union)
    return {name: half for name, values in ious.items() if (half := interval95(values)) is not None}
