"""A page's parts that draw: bars of classes, learning curves, pairs of episodes, the gallery."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fss.report.episodes import Scored, class_intervals
from fss.report.page import svg
from fss.report.page.gallery import Card, Picture, cards, choose, data_uri
from fss.report.page.markup import Markup, join, tag
from fss.report.protocol import listed
from fss.report.results import Number, Result, compare
from fss.report.training import is_step, log_of, read_log, stretches


@dataclass(frozen=True)
class Shown:
    """One result with what lies around it.

    Attributes:
        row: index of the table's row, which gives the colour.
        title: the row's.
        episodes: empty where they are not known; `why` then says so.
        pictures: those that fit the result; `old` others do not.
    """

    row: int
    title: str
    result: Result
    episodes: list[Scored]
    why: str
    pictures: list[Picture]
    old: int

    @property
    def fold(self) -> int:
        """-1 for every class."""
        return int(self.result.protocol["fold"])

    @property
    def name(self) -> str:
        """The title, with the fold."""
        return f"{self.title}, {fold_name(self.fold)}"


def fold_name(fold: int) -> str:
    """As in the table."""
    return f"fold {fold}" if fold >= 0 else "all classes"


def named(some: Sequence[Shown], every: Sequence[Shown]) -> str:
    """Results by title, with their folds where there are several: `cwt (fold 0, fold 1)`."""
    if len(some) == len(every) > 1:
        return "any of these results"
    several = len({s.fold for s in every}) > 1
    folds: dict[str, list[str]] = {}
    for one in some:
        folds.setdefault(one.title, []).append(fold_name(one.fold))
    return ", ".join(f"{title} ({', '.join(own)})" if several else title for title, own in folds.items())


def swatch(row: int, text: str) -> Markup:
    """A row's colour and its name."""
    return join(tag("span", class_=f"swatch {svg.colour(row)}", aria_hidden="true"), tag("span", text))


def section(name: str, title: str, *inside: object) -> Markup:
    """A part of the page that the navigation links to."""
    return tag("section", tag("h2", title), *inside, id=name)


def signed(value: float, digits: int) -> str:
    """With a plus or a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def soft(text: str) -> Markup:
    """A remark."""
    return tag("p", text, class_="soft")


def classes_part(shown: Sequence[Shown]) -> Markup:
    """IoU of each class as a bar: one table for each fold."""
    folds = sorted({s.fold for s in shown})
    tables = [_classes([s for s in shown if s.fold == fold], fold) for fold in folds]
    remarks = [soft("IoU in percent; ± and the thin line are half the 95% interval over runs.")]
    for why in dict.fromkeys(s.why for s in shown if s.why):
        remarks.append(soft(f"No interval for {named([s for s in shown if s.why == why], shown)}: {why}."))
    return section("classes", "Classes", *remarks, tag("div", *tables, class_="columns"))


def _classes(shown: Sequence[Shown], fold: int) -> Markup:
    """Classes of one fold: a line each or, with several rows of the table, a heading with a line for each."""
    halves = [class_intervals(s.episodes) for s in shown]
    names = list(dict.fromkeys(n for s in shown for n in s.result.content["scores"]["per_class"]))
    lines: list[Markup] = []
    for name in names:
        if len(shown) > 1:
            lines.append(tag("tr", tag("th", name, scope="rowgroup", colspan=3), class_="head"))
        for one, half in zip(shown, halves, strict=True):
            iou = one.result.content["scores"]["per_class"].get(name)
            label = swatch(one.row, one.title) if len(shown) > 1 else name
            lines.append(_class_line(label, iou, half.get(name), one.row))
    heads = [tag("th", text, scope="col") for text in ("class", "", "IoU")]
    caption = tag("caption", f"{fold_name(fold)}{f': {shown[0].title}' if len(shown) == 1 else ''}")
    head = tag("thead", tag("tr", heads[0], tag("td"), heads[2]))
    return tag("table", caption, head, tag("tbody", *lines), class_="classes")


def _class_line(label: object, iou: float | None, half: float | None, row: int) -> Markup:
    head = tag("th", label, scope="row")
    if iou is None:
        return tag("tr", head, tag("td", class_="bars"), tag("td", "never seen"))
    number = tag("td", str(Number(iou, half)), class_="number")
    return tag("tr", head, tag("td", svg.bar(iou, half, row), class_="bars"), number)


def curves_part(shown: Sequence[Shown]) -> Markup:
    """The training behind each result; results of one training share its curve."""
    logs: dict[Path, list[Shown]] = {}
    for one in shown:
        if log := log_of(one.result):
            logs.setdefault(log, []).append(one)
    figures = [_curve(path, of, shown) for path, of in logs.items()]
    found = {id(s) for of in logs.values() for s in of}
    without = [s for s in shown if id(s) not in found]
    idle = [s for s in without if s.result.content["shots"]["train"] is None]
    gone = [s for s in without if s.result.content["shots"]["train"] is not None]
    remarks = [soft("The band goes from lowest to highest loss. Dashed: the step of the tested checkpoint.")]
    if idle:
        remarks.append(soft(f"Nothing was trained on episodes for {named(idle, shown)}."))
    if gone:
        remarks.append(soft(f"No log.jsonl beside or above the result of {named(gone, shown)}."))
    remarks = remarks if figures else remarks[1:]
    return section("training", "Training", *remarks, tag("div", *figures, class_="columns"))


def _curve(path: Path, shown: Sequence[Shown], every: Sequence[Shown]) -> Markup:
    training = read_log(path)
    names = named(shown, every) if len(every) > len(shown) else listed([s.title for s in shown])
    if not training.losses and not training.validations:
        return soft(f"{path} holds no step: {names}.")
    steps = [s.result.content.get("checkpoint", {}).get("steps") for s in shown]
    tested = sorted({s for s in steps if is_step(s)})
    title = f"Training loss and validation mIoU of {names}"
    drawn = svg.curves(stretches(training.losses), training.validations, tested, shown[0].row, title)
    best = max((v for _, v in training.validations), default=None)
    told = f": {max((s + 1 for s, _ in training.losses), default=0)} steps"  # the log counts from 0
    told += "" if best is None else f", best validation mIoU {best:.1f}"
    caption = tag("figcaption", swatch(shown[0].row, names), told)
    return tag("figure", caption, drawn)


def pair_part(first: Shown, second: Shown) -> Markup:
    """Two results of one plan: the difference, run by run and class by class, and each episode as a dot."""
    difference = compare(first.result, second.result)
    d = difference.miou
    half = "" if d.interval is None else f" ± {d.interval:.2f} (95%, {len(first.result.runs)} runs in pairs)"
    apart = ""
    if d.interval is not None:
        apart = (
            " 0 lies inside the interval." if abs(d.mean) <= d.interval else " 0 lies outside the interval."
        )
    said = tag(
        "p",
        tag("strong", f"{signed(d.mean, 2)}{half}"),
        f" points of mIoU: {second.title} less {first.title}.{apart}",
    )
    heads = ("class", first.title, second.title, "difference")
    a, b = (s.result.content["scores"]["per_class"] for s in (first, second))
    lines = [
        tag(
            "tr",
            tag("th", c, scope="row"),
            *(tag("td", t) for t in (f"{a[c]:.1f}", f"{b[c]:.1f}", signed(v, 1))),
        )
        for c, v in difference.per_class.items()
    ]
    head = tag("thead", tag("tr", *(tag("th", h, scope="col") for h in heads)))
    table = tag("div", tag("table", head, tag("tbody", *lines)), class_="wide")
    side = tag("div", said, table)
    return section("pair", "The same episodes", tag("div", side, _scatter(first, second), class_="columns"))


def _scatter(first: Shown, second: Shown) -> Markup:
    missing = [s for s in (first, second) if not s.episodes]
    if missing:
        why = "; ".join(f"{s.title}: {s.why}" for s in missing)
        return soft(f"No picture of single episodes. {why}.")
    others = {(e.run, e.number): e for e in second.episodes}
    dots = []
    for e in first.episodes:
        other = others[e.run, e.number]
        what = f"run {e.run}, episode {e.number}, {e.class_name} ({e.query})"
        dots.append(svg.Dot(e.iou, other.iou, f"{what}: {e.iou:.1f}, {other.iou:.1f}"))
    up, down = sum(d.y > d.x for d in dots), sum(d.y < d.x for d in dots)
    told = f"{len(dots)} episodes: {second.title} is better in {up}, {first.title} in {down}"
    names = first.title, second.title
    drawn = svg.scatter(dots, names, (first.row, second.row), f"IoU of both in each episode. {told}.")
    return tag("figure", drawn, tag("figcaption", f"{told}. A dot is an episode; rest on it for its number."))


def gallery_part(shown: Sequence[Shown], most: int) -> Markup:
    """Pictures of episodes from worst to best, one card for all heads that drew the episode."""
    every = cards([(s.row, s.result, s.pictures) for s in shown])
    chosen = choose(every, most)
    remarks = _about_pictures(shown, every, chosen)
    if not chosen:
        return section("episodes", "Episodes", *remarks)
    titles = {s.row: s.title for s in shown}
    orders = [
        ("iou up", "worst first"),
        ("iou down", "best first"),
        ("class up", "class"),
        ("place up", "run"),
    ]
    gains = len({row for c in chosen for row, _ in c.pictures}) == 2 and all(
        len(c.pictures) == 2 for c in chosen
    )
    if gains:
        one, two = (titles[row] for row, _ in chosen[0].pictures)
        orders += [("gain down", f"{two} ahead most"), ("gain up", f"{one} ahead most")]
    options = [tag("option", text, value=value) for value, text in orders]
    label = tag("label", "Sort by ", tag("select", *options, id="order", autocomplete="off"))
    drawn, widest = [], 0
    for card in chosen:
        figure, width = _card(card, titles, gains)
        drawn.append(figure)
        widest = max(widest, width)
    tools = tag("div", label, class_="tools", hidden=True)
    least = f"--least: {min(44, max(16, round(widest / 24)))}rem"
    return section("episodes", "Episodes", *remarks, tools, tag("div", *drawn, class_="gallery", style=least))


def _about_pictures(shown: Sequence[Shown], every: Sequence[Card], chosen: Sequence[Card]) -> list[Markup]:
    """How many pictures of how many are shown, and what they show."""
    there, taken = (sum(len(c.pictures) for c in part) for part in (every, chosen))
    remarks = []
    if taken:
        how = "all" if taken == there else f"chosen evenly from worst to best, of {there}"
        what = (
            "supports with their masks (red), the query with its true mask (red), with the prediction (blue)"
        )
        remarks.append(soft(f"{taken} pictures, {how}. Each: {what}."))
    elif there:
        remarks.append(soft(f"None of {there} pictures asked for."))
    if old := sum(s.old for s in shown):
        remarks.append(
            soft(f"{old} pictures of earlier tests, whose IoU is no longer the result's, are left out.")
        )
    without = [s for s in shown if not s.pictures]
    if without:
        remarks.append(soft(f"No pictures of {named(without, shown)}; a test with --visualize draws them."))
    return remarks


def _card(card: Card, titles: dict[int, str], gains: bool) -> tuple[Markup, int]:
    """A card, and the width of its pictures."""
    some, parts, width = card.some, [], 0
    place = f"{fold_name(card.fold)}, {card.shots}-shot, run {some.run}, episode {some.number}"
    for row, picture in card.pictures:
        source, width, height = data_uri(picture.path)
        what = f"{some.class_name}, supports, query and prediction of {titles[row]}"
        alt = f"{place}: {what}, IoU {picture.iou:.1f} percent"
        parts.append(tag("img", src=source, width=width, height=height, alt=alt, decoding="async"))
        parts.append(tag("p", tag("span", swatch(row, titles[row])), tag("strong", f"{picture.iou:.1f}")))
    query = f", query {some.query}" if some.query else ""
    caption = tag("figcaption", tag("strong", some.class_name), tag("br"), place, query)
    key = f"{card.fold:04}-{card.shots:04}-{some.run:04}-{some.number:07}"
    gain = card.pictures[1][1].iou - card.pictures[0][1].iou if gains else None
    data = {"data_iou": f"{card.iou:.2f}", "data_class": some.class_name, "data_place": key}
    return tag("figure", *parts, caption, class_="card", **data, data_gain=gain and f"{gain:.2f}"), width
