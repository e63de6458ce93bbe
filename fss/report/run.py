"""`fss report`: makes a table or a page of results, or compares two of them in pairs."""

from collections.abc import Sequence
from pathlib import Path

from fss.errors import UserError
from fss.report import tables
from fss.report.page.page import report_page
from fss.report.results import compare, make_rows, read_results
from fss.writing import write_text


def run_report(paths: Sequence[Path], out: Path | None, compared: bool, pictures: int) -> None:
    """Write a table of results, a page with at most `pictures` pictures, or the paired difference of two."""
    kind = tables.format_of(out) if out else ".md"
    if pictures < 0:
        raise UserError(f"--pictures {pictures}: allowed are 0 and above")
    results = read_results(paths)
    if compared and len(results) != 2:
        raise UserError(f"--compare takes two results, got {len(results)}")
    difference = compare(results[0], results[1]) if compared else None  # raises if they are no pair
    if kind == tables.PAGE:
        text = report_page(results, pictures)
    elif difference:
        text = tables.comparison_text(results[0], results[1], difference, kind if out else "") + "\n"
    else:
        text = tables.FORMATS[kind](make_rows(results), results)
    if out:
        write_text(out, text)
        print(f"{len(results)} result{'' if len(results) == 1 else 's'} -> {out}")
    else:
        print(text, end="")
