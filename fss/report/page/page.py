"""Makes one page of one or many results, which opens from disk without any network.

This file and figures.py gather the values; `page.html`, a template of Jinja2, lays them out. The template
escapes every value but the plots of svg.py.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fss.report.episodes import episodes_of
from fss.report.page.figures import (
    Shown,
    View,
    classes_part,
    curves_part,
    fold_name,
    gallery_part,
    pair_part,
)
from fss.report.page.gallery import find_pictures
from fss.report.page.svg import colour
from fss.report.protocol import listed, protocol_id, protocol_words
from fss.report.results import Number, Result, Row, make_rows
from fss.report.tables import cells, headings, notes, published

_TILES = 4  # scores stand in large figures if there are no more rows


def report_page(results: Sequence[Result], pictures: int = 60) -> str:
    """The page as HTML.

    Args:
        pictures: of episodes, at most; those that lie in `visualize/` beside the results.

    Raises:
        UserError: results that must not share a table, or a file beside them that is damaged.
    """
    rows = make_rows(results)
    shown = [
        _shown(i, title, result)
        for i, title in enumerate(_titles(rows))
        for result in rows[i].results.values()
    ]
    pair = None
    if len(results) == 2 and len({r.protocol["plan_sha256"] for r in results}) == 1:
        first, second = sorted(shown, key=lambda s: results.index(s.result))
        pair = pair_part(first, second)
    return str(
        _template().render(
            title=_title(results),
            tiles=[
                tile for i, row in enumerate(rows) if len(rows) <= _TILES and (tile := _tile(i, row, shown))
            ],
            results=_results(rows, results, shown),
            protocol=_protocol(results),
            pair=pair,
            classes=classes_part(shown),
            training=curves_part(shown),
            episodes=gallery_part(shown, pictures),
            origins=[(s.row, s.title, _origin(s)) for s in shown],
        )
    )


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    world = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    world.filters["colour"] = colour
    return world.get_template("page.html")


def _shown(row: int, title: str, result: Result) -> Shown:
    episodes, why = episodes_of(result)
    pictures, old = find_pictures(result, episodes)
    return Shown(row, title, result, episodes, why, pictures, old)


def _titles(rows: Sequence[Row]) -> list[str]:
    """Names of rows, with checkpoint and shots if those tell them apart."""
    named = []
    for row in rows:
        kin = [r for r in rows if r.label == row.label]
        parts = [row.label]
        if len({r.checkpoint for r in kin}) > 1:
            parts.append(row.checkpoint or "base")
        if len({r.trained for r in kin}) > 1:
            parts.append(f"trained {row.trained or 0}-shot")
        if len({r.tested for r in rows}) > 1:
            parts.append(f"{row.tested}-shot")
        named.append(", ".join(parts))
    return named


def _title(results: Sequence[Result]) -> str:
    folds = sorted({r.protocol["fold"] for r in results})
    shots = sorted({r.protocol["shots"] for r in results})
    where = fold_name(folds[0]) if len(folds) == 1 else f"folds {listed(folds)}"
    return f"{results[0].protocol['data']}, {where}, {listed(shots)} shot{'' if shots == [1] else 's'}"


def _tile(index: int, row: Row, shown: Sequence[Shown]) -> View | None:
    """A row's score in large figures, over all folds or of the only one; None if folds are missing."""
    only = next(iter(row.folds.values())) if len(row.folds) == 1 else None
    number = row.miou or only
    if number is None:
        return None
    fb = row.fb_iou if row.miou else next(iter(row.results.values())).modern["scores"]["fb_iou"]
    title = next(s.title for s in shown if s.row == index)
    about = f"mIoU over {_over(row)}; FB-IoU {fb:.1f}"
    return {"row": index, "title": title, "number": str(number), "about": about}


def _over(row: Row) -> str:
    some = next(iter(row.results.values()))
    count = sum(len(r.modern["scores"]["per_class"]) for r in row.results.values())
    return f"{count} classes, {some.protocol['runs']} x {some.protocol['episodes']} episodes" + (
        " a fold" if len(row.folds) > 1 else ""
    )


def _results(rows: Sequence[Row], results: Sequence[Result], shown: Sequence[Shown]) -> View:
    """The table without empty columns, and remarks on it."""
    own, others, heads = cells(rows), published(rows, results), headings(rows)
    kept = [i for i in range(len(heads)) if any(line[i] for line in [*own, *others])]
    return {
        "heads": [heads[i] for i in kept],
        "own": [[line[i] for i in kept] for line in own],
        "published": [[line[i] for i in kept] for line in others],
        "remarks": [*notes(rows, results), *(text for s in shown for text in _remarks(s))],
    }


def _remarks(one: Shown) -> list[str]:
    """Remarks of a result: episodes out of the ordinary, classes not seen, supports."""
    scores, told = one.result.modern["scores"], one.result.modern.get("supports")
    said = [
        f"{count} episodes: {note.replace('_', ' ')}"
        for note, count in scores.get("notes", {}).items()
        if count
    ]
    if unseen := scores.get("unseen_classes"):
        said.append(f"in no episode: {listed(unseen)}")
    if told:
        iou = told.get("miou_with_truth") or 0
        said.append(
            f"supports made from {told['kind']} by {told['method']}, mean IoU with the true ones {iou:.1f}"
        )
    return [f"{one.name}: {text}." for text in said]


def _protocol(results: Sequence[Result]) -> View:
    """The protocol in words, and field by field."""
    folds = sorted({r.protocol["fold"] for r in results})
    shots = sorted({r.protocol["shots"] for r in results})
    keys = list(dict.fromkeys(k for r in results for k in r.protocol))
    return {
        "words": protocol_words(results[0].protocol, folds, shots),
        "number": protocol_id(results[0].protocol),
        "fields": [(key, _values(results, key)) for key in keys],
    }


def _values(results: Sequence[Result], key: str) -> str:
    """A field's value or, if results may differ in it, all values."""
    return "; ".join(dict.fromkeys(_text(r.protocol.get(key)) for r in results))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _origin(one: Shown) -> list[str]:
    """Fold and mIoU of a result, then checkpoint, network, versions, machine and file."""
    content = one.result.modern
    told, made = content.get("checkpoint", {}), content.get("environment", {})
    steps = "" if told.get("steps") is None else f"step {told['steps']}"
    number = Number(sum(one.result.runs) / len(one.result.runs), None)
    commit = str(made.get("commit") or "")[:8]
    tools = [f"fss {made.get('fss', '?')} {commit}".strip(), f"torch {made.get('torch', '?')}"]
    tools += [str(x) for x in (content.get("precision"), made.get("device")) if x]
    which = ", ".join(filter(None, [one.result.checkpoint, steps]))
    return [
        str(one.fold) if one.fold >= 0 else "all", str(number), which,
        content["frozen_sha256"][:12], ", ".join(tools), str(one.result.path),
    ]  # fmt: skip
