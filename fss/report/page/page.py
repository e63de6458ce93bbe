"""One page on one or many results, which opens from disk and asks nothing of any network."""

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from fss.report.episodes import episodes_of
from fss.report.page.figures import (
    Shown,
    classes_part,
    curves_part,
    fold_name,
    gallery_part,
    pair_part,
    section,
    soft,
    swatch,
)
from fss.report.page.gallery import find_pictures
from fss.report.page.markup import Markup, join, tag
from fss.report.page.svg import colour
from fss.report.protocol import listed, protocol_id, protocol_words
from fss.report.results import Number, Result, Row, make_rows
from fss.report.tables import cells, headings, notes, published

_TEMPLATE = Path(__file__).with_name("page.html")
_TILES = 4  # rows at most whose score stands in large figures


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
    parts = [("results", _results(rows, results, shown)), ("protocol", _protocol(results))]
    if len(results) == 2 and len({r.protocol["plan_sha256"] for r in results}) == 1:
        first, second = sorted(shown, key=lambda s: results.index(s.result))
        parts.append(("pair", pair_part(first, second)))
    parts += [
        ("classes", classes_part(shown)),
        ("training", curves_part(shown)),
        ("episodes", gallery_part(shown, pictures)),
        ("origins", _origins(shown)),
    ]
    title = _title(results)
    body = join(_header(title, rows, shown, [name for name, _ in parts]), tag("main", *(p for _, p in parts)))
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(title=join(title), body=body)
    return page.encode("utf-8", "replace").decode("utf-8")  # names of files may hold what UTF-8 has not


def _shown(row: int, title: str, result: Result) -> Shown:
    episodes, why = episodes_of(result)
    pictures, old = find_pictures(result, episodes)
    return Shown(row, title, result, episodes, why, pictures, old)


def _titles(rows: Sequence[Row]) -> list[str]:
    """Rows by name, with checkpoint and shots where those tell them apart."""
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


_LINKS = {
    "results": "Results", "protocol": "Protocol", "pair": "Same episodes", "classes": "Classes",
    "training": "Training", "episodes": "Episodes", "origins": "Origins",
}  # fmt: skip


def _header(title: str, rows: Sequence[Row], shown: Sequence[Shown], names: Sequence[str]) -> Markup:
    links = tag(
        "nav", *(tag("a", _LINKS[name], href=f"#{name}") for name in names), aria_label="Parts of this page"
    )
    tiles = [_tile(i, row, shown) for i, row in enumerate(rows) if len(rows) <= _TILES]
    what = tag("p", "Few-shot segmentation of classes that were never trained on", class_="soft")
    held = tag("div", *tiles, class_="tiles") if any(tiles) else None
    return tag("header", what, tag("h1", title), links, held)


def _tile(index: int, row: Row, shown: Sequence[Shown]) -> Markup | None:
    """A row's score: over all folds, or of the only one."""
    only = next(iter(row.folds.values())) if len(row.folds) == 1 else None
    number = row.miou or only
    if number is None:
        return None
    fb = row.fb_iou if row.miou else next(iter(row.results.values())).content["scores"]["fb_iou"]
    title = next(s.title for s in shown if s.row == index)
    about = tag("span", f"mIoU over {_over(row)}; FB-IoU {fb:.1f}", class_="soft")
    return tag("div", tag("span", title), tag("strong", str(number)), about, class_=f"tile {colour(index)}")


def _over(row: Row) -> str:
    some = next(iter(row.results.values()))
    count = sum(len(r.content["scores"]["per_class"]) for r in row.results.values())
    return f"{count} classes, {some.protocol['runs']} x {some.protocol['episodes']} episodes" + (
        " a fold" if len(row.folds) > 1 else ""
    )


def _results(rows: Sequence[Row], results: Sequence[Result], shown: Sequence[Shown]) -> Markup:
    own, others = cells(rows), published(rows, results)
    kept = [
        i for i in range(len(headings(rows))) if any(line[i] for line in [*own, *others])
    ]  # no empty column
    head = tag("thead", tag("tr", *(tag("th", headings(rows)[i], scope="col") for i in kept)))
    lines = [_line(swatch(n, line[0]), [line[i] for i in kept[1:]]) for n, line in enumerate(own)]
    lines += [_line(line[0], [line[i] for i in kept[1:]], "published") for line in others]
    table = tag("div", tag("table", head, tag("tbody", *lines)), class_="wide")
    remarks = [soft(note) for note in notes(rows, results)]
    return section("results", "Results", table, *remarks, *(soft(t) for s in shown for t in _remarks(s)))


def _line(first: object, others: Sequence[str], name: str | None = None) -> Markup:
    return tag(
        "tr", tag("th", first, scope="row"), *(tag("td", c, class_="number") for c in others), class_=name
    )


def _remarks(one: Shown) -> list[str]:
    """What a result says beside its scores: episodes out of the ordinary, classes not seen, supports."""
    scores, told = one.result.content["scores"], one.result.content.get("supports")
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


def _protocol(results: Sequence[Result]) -> Markup:
    """In words, and field by field."""
    folds = sorted({r.protocol["fold"] for r in results})
    shots = sorted({r.protocol["shots"] for r in results})
    keys = list(dict.fromkeys(k for r in results for k in r.protocol))
    lines = [
        tag("tr", tag("th", tag("code", key), scope="row"), tag("td", _values(results, key))) for key in keys
    ]
    table = tag("table", tag("tbody", *lines), class_="texts")
    fields = tag(
        "details", tag("summary", "Field by field, as in result.json"), tag("div", table, class_="wide")
    )
    words = tag("p", protocol_words(results[0].protocol, folds, shots))
    number = soft(
        f"Its number is {protocol_id(results[0].protocol)}; scores of equal numbers are comparable."
    )
    return section("protocol", "Protocol", words, number, fields)


def _values(results: Sequence[Result], key: str) -> str:
    """A field's value or, of the few that may differ, all of them."""
    return "; ".join(dict.fromkeys(_text(r.protocol.get(key)) for r in results))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _origins(shown: Sequence[Shown]) -> Markup:
    """Which checkpoint, network, versions and machine each number comes from."""
    heads = ("head", "fold", "mIoU", "checkpoint", "frozen network", "computed with", "file")
    head = tag("thead", tag("tr", *(tag("th", h, scope="col") for h in heads)))
    lines = [
        tag("tr", tag("th", swatch(s.row, s.title), scope="row"), *map(_cell, _origin(s))) for s in shown
    ]
    table = tag("div", tag("table", head, tag("tbody", *lines), class_="texts"), class_="wide")
    return section("origins", "Where the numbers come from", table)


def _cell(text: str) -> Markup:
    return tag("td", text)


def _origin(one: Shown) -> list[str]:
    content = one.result.content
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
