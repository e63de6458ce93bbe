"""Result files read, and tables of Markdown written: what `tables.py` makes its tables with."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fss.report.results import Number, Result, Row, make_rows, read_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS, STUDIES = ROOT / "docs/results", ROOT / "studies/results"

# Reading.


def results(*names: str) -> list[Result]:
    """Results of docs/results by name, `*` for every fold; all of a name must be there."""
    found = [path for name in names for path in sorted(RESULTS.glob(f"{name}.json"))]
    assert len({p.name.split("_fold")[0] for p in found}) >= 1, names
    return read_results(found)


def row(*names: str) -> Row:
    """The one row that results make."""
    (found,) = make_rows(results(*names))
    return found


def study(name: str) -> dict[str, Any]:
    """The JSON of a study."""
    return dict(json.loads((STUDIES / f"{name}.json").read_text(encoding="utf-8")))


# Writing.


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    every = [f"| {' | '.join(cells)} |" for cells in (heads, *lines)]
    return "\n".join([every[0], "|---" * len(heads) + "|", *every[1:]])


def origin(where: str, commits: Iterable[str | None]) -> str:
    """The line below a table: its files, and the commits at which they were measured."""
    known = list(dict.fromkeys(str(c)[:7] for c in commits if c))
    at = f"commit{'s' if len(known) > 1 else ''} {', '.join(known)}"
    return f"*From `{where}`; {at}.*"


def commits(found: Iterable[Result]) -> list[str | None]:
    """The commits of results."""
    return [r.content.get("environment", {}).get("commit") for r in found]


def of_study(*names: str) -> str:
    """`origin` of studies."""
    told = [study(name)["environment"]["commit"] for name in names]
    return origin("` and `".join(f"studies/results/{n}.json" for n in names), told)


def number(value: Number | None, digits: int = 1) -> str:
    """A mean with its interval."""
    if value is None:
        return ""
    half = "" if value.interval is None else f" ± {value.interval:.{digits}f}"
    return f"{value.mean:.{digits}f}{half}"


def by_fold(rows: Sequence[tuple[Sequence[str], Row]], with_interval: bool = True) -> list[list[str]]:
    """Cells of rows with their titles before, four folds and the mean after."""
    lines = []
    for titles, one in rows:
        last = "" if one.miou is None else number(one.miou if with_interval else Number(one.miou.mean, None))
        lines.append([*titles, *(number(one.folds.get(f)) for f in range(4)), last])
    return lines


FOLDS = [f"fold {f}" for f in range(4)]
