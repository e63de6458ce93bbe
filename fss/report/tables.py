"""Tables of many results, as Markdown or CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fss.errors import UserError
from fss.reading import read_yaml
from fss.report.protocol import protocol_name
from fss.report.results import Comparison, Result, Row
from fss.report.training import is_step
from fss.writing import csv_cell, markdown_cell, plain_line


def headings(rows: Sequence[Row]) -> list[str]:
    """The table's headings; folds that no row has are left out."""
    folds = [f"fold {f}" if f >= 0 else "all classes" for f in sorted({f for r in rows for f in r.folds})]
    return ["head", "checkpoint", "trained", "tested", *folds, "mean", "FB-IoU"]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells, line by line, in the order of `headings`."""
    folds = sorted({f for r in rows for f in r.folds})
    shots = lambda k: "" if k is None else f"{k}-shot"  # noqa: E731
    return [
        [
            row.label, row.checkpoint, shots(row.trained), shots(row.tested),
            *(str(row.folds.get(f, "")) for f in folds),
            str(row.miou or ""), "" if row.fb_iou is None else f"{row.fb_iou:.1f}",
        ]
        for row in rows
    ]  # fmt: skip


def notes(rows: Sequence[Row], results: Sequence[Result]) -> list[str]:
    """Remarks that a reader of the numbers needs."""
    p = results[0].protocol
    lines = [
        "mIoU in percent; ± is half the 95% interval over runs; equal episodes in every row of a column.",
        f"Protocol: {protocol_name(p)}.",
    ]
    folds = sorted({f for r in rows for f in r.networks})
    mixed = [f for f in folds if len({r.networks[f] for r in rows if f in r.networks}) > 1]
    if mixed:
        lines.append(f"Frozen networks differ between rows in fold {', '.join(map(str, mixed))}.")
    lines += [line for row in rows if (line := _steps(row))]
    if any(r.miou is None for r in rows):
        lines.append("No mean where a fold is missing.")
    if p["published_list"] is False:
        lines.append("The list of test images is not the published one.")
    if published(rows, results):
        lines.append("Rows with a source in brackets are published numbers, each on a protocol of its own.")
    return lines


def _steps(row: Row) -> str:
    """Says where folds were tested after different numbers of steps, as budgets in seconds make them."""
    found = {r.modern.get("checkpoint", {}).get("steps") for r in row.results.values()}
    steps = sorted(s for s in found if is_step(s))
    return f"Checkpoints of {row.label}: of step {steps[0]} to {steps[-1]}." if len(steps) > 1 else ""


def published(rows: Sequence[Row], results: Sequence[Result]) -> list[list[str]]:
    """Published numbers on the same data with the same shots, from published.yaml."""
    shown = sorted({f for r in rows for f in r.folds})
    lines = []
    for paper in read_yaml(Path(__file__).parent / "published.yaml"):
        here = paper["data"] == results[0].protocol["data"] and results[0].protocol["folds"] == 4
        if not here or -1 in shown or paper["shots"] not in {r.tested for r in rows}:
            continue
        folds = [str(paper["folds"][f]) if "folds" in paper else "" for f in shown]
        title = f"{paper['method']} ({paper['source']})"
        lines.append([title, "", "", f"{paper['shots']}-shot", *folds, str(paper["mean"]), ""])
    return lines


def markdown(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """A table for a README."""
    from tabulate import tabulate

    every = [[markdown_cell(c) for c in line] for line in [*cells(rows), *published(rows, results)]]
    table = tabulate(every, headings(rows), "github", disable_numparse=True)
    return table + "\n\n" + "\n".join(map(markdown_cell, notes(rows, results))) + "\n"


def comma_separated(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """A table for a spreadsheet, without notes and published numbers."""
    out = io.StringIO()
    lines = [headings(rows), *cells(rows)]
    csv.writer(out, lineterminator="\n").writerows([list(map(_csv, line)) for line in lines])
    return out.getvalue()


def _csv(text: str) -> str:
    return csv_cell(plain_line(text))


FORMATS = {".md": markdown, ".csv": comma_separated}
PAGE = ".html"  # written by page/page.py


def format_of(path: Path) -> str:
    """The suffix of a file's name, which chooses the format; `UserError` if there is no such format."""
    if path.suffix not in (*FORMATS, PAGE):
        raise UserError(f"--out {path}: allowed are names in {', '.join((*FORMATS, PAGE))}")
    return path.suffix


def comparison_text(first: Result, second: Result, difference: Comparison, kind: str = "") -> str:
    """A paired comparison, class by class, for the screen or for a file of a kind in `FORMATS`."""
    from tabulate import SEPARATING_LINE, tabulate

    d = difference.miou
    half = "" if d.interval is None else f"+- {d.interval:.2f} (95%, runs in pairs)"
    said = {".md": markdown_cell, ".csv": _csv}.get(kind, plain_line)
    lines: list[Any] = [[said(name), f"{value:+.2f}", ""] for name, value in difference.per_class.items()]
    lines += [SEPARATING_LINE, ["mIoU", f"{d.mean:+.2f}", half]]
    table = tabulate(lines, tablefmt="simple", disable_numparse=True, colalign=("left", "right", "left"))
    return f"{said(str(second.path))}\nless {said(str(first.path))}\n\n{table}"
