"""Values for the drawn parts of a page: bars of classes, learning curves, pairs of episodes, the gallery.

Each function returns the values of one section of `page.html`, which alone knows HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.report.episodes import Scored, class_intervals
from fss.report.page import svg
from fss.report.page.gallery import Card, Picture, cards, choose, data_uri
from fss.report.protocol import listed
from fss.report.results import Number, Result, compare
from fss.report.training import is_step, log_of, read_log, stretches

View = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One result with the files that lie around it.

    Attributes:
        row: index in the table, which gives the colour.
        title: the name of that row.
        episodes: empty if they are not known; `why` is the reason.
        pictures: those that fit the result; `old` counts the others.
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
        """The fold; -1 for every class."""
        return int(self.result.protocol["fold"])

    @property
    def name(self) -> str:
        """The title, with the fold."""
        return f"{self.title}, {fold_name(self.fold)}"

    @property
    def per_class(self) -> dict[str, float]:
        """Class -> IoU over all runs, percent."""
        return dict(self.result.modern["scores"]["per_class"])


def fold_name(fold: int) -> str:
    """A fold as the table calls it."""
    return f"fold {fold}" if fold >= 0 else "all classes"


def named(some: Sequence[Shown], every: Sequence[Shown]) -> str:
    """Results by title, with their folds if there are several: `cwt (fold 0, fold 1)`."""
    if len(some) == len(every) > 1:
        return "any of these results"
    several = len({s.fold for s in every}) > 1
    folds: dict[str, list[str]] = {}
    for one in some:
        folds.setdefault(one.title, []).append(fold_name(one.fold))
    return ", ".join(f"{title} ({', '.join(own)})" if several else title for title, own in folds.items())


def signed(value: float, digits: int) -> str:
    """A number with a plus or a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def classes_part(shown: Sequence[Shown]) -> View:
    """IoU of each class as a bar: one table for each fold."""
    remarks = ["IoU in percent; ± and the thin line are half the 95% interval over runs."]
    for why in dict.fromkeys(s.why for s in shown if s.why):
        remarks.append(f"No interval for {named([s for s in shown if s.why == why], shown)}: {why}.")
    folds = sorted({s.fold for s in shown})
    return {"remarks": remarks, "tables": [_classes([s for s in shown if s.fold == f], f) for f in folds]}


def _classes(shown: Sequence[Shown], fold: int) -> View:
    """Classes of one fold, each with a line for every row of the table."""
    halves = [class_intervals(s.episodes) for s in shown]
    groups = [
        (name, [_class_line(one, name, half.get(name)) for one, half in zip(shown, halves, strict=True)])
        for name in dict.fromkeys(n for s in shown for n in s.per_class)
    ]
    alone = "" if len(shown) > 1 else f": {shown[0].title}"
    return {"caption": fold_name(fold) + alone, "several": len(shown) > 1, "groups": groups}


def _class_line(one: Shown, name: str, half: float | None) -> View:
    iou = one.per_class.get(name)
    if iou is None:
        return {"row": one.row, "title": one.title, "bar": "", "number": "never seen"}
    bar = svg.bar(iou, half, one.row)
    return {"row": one.row, "title": one.title, "bar": bar, "number": str(Number(iou, half))}


def curves_part(shown: Sequence[Shown]) -> View:
    """The curve of the training behind each result; results of one training share it."""
    logs: dict[Path, list[Shown]] = {}
    for one in shown:
        if log := log_of(one.result):
            logs.setdefault(log, []).append(one)
    found = {id(s) for of in logs.values() for s in of}
    without = [s for s in shown if id(s) not in found]
    idle = [s for s in without if s.result.modern["shots"]["train"] is None]
    gone = [s for s in without if s.result.modern["shots"]["train"] is not None]
    remarks = []
    if logs:
        remarks.append(
            "The band goes from lowest to highest loss. Dashed: the step of the tested checkpoint."
        )
    if idle:
        remarks.append(f"Nothing was trained on episodes for {named(idle, shown)}.")
    if gone:
        remarks.append(f"No log.jsonl beside or above the result of {named(gone, shown)}.")
    return {"remarks": remarks, "figures": [_curve(path, of, shown) for path, of in logs.items()]}


def _curve(path: Path, shown: Sequence[Shown], every: Sequence[Shown]) -> View:
    training = read_log(path)
    names = named(shown, every) if len(every) > len(shown) else listed([s.title for s in shown])
    if not training.losses and not training.validations:
        return {"row": shown[0].row, "names": names, "told": f": {path} holds no step", "plot": ""}
    steps = [s.result.modern.get("checkpoint", {}).get("steps") for s in shown]
    tested = sorted({s for s in steps if is_step(s)})
    title = f"Training loss and validation mIoU of {names}"
    plot = svg.curves(stretches(training.losses), training.validations, tested, shown[0].row, title)
    best = max((v for _, v in training.validations), default=None)
    told = f": {max((s + 1 for s, _ in training.losses), default=0)} steps"  # the log counts from 0
    told += "" if best is None else f", best validation mIoU {best:.1f}"
    return {"row": shown[0].row, "names": names, "told": told, "plot": plot}


def pair_part(first: Shown, second: Shown) -> View:
    """Two results of one plan: the difference, run by run and class by class, and each episode as a dot."""
    difference = compare(first.result, second.result)
    d, apart = difference.miou, ""
    half = "" if d.interval is None else f" ± {d.interval:.2f} (95%, {len(first.result.runs)} runs in pairs)"
    if d.interval is not None:
        apart = f" 0 lies {'inside' if abs(d.mean) <= d.interval else 'outside'} the interval."
    a, b = first.per_class, second.per_class
    return {
        "number": f"{signed(d.mean, 2)}{half}",
        "said": f" points of mIoU: {second.title} less {first.title}.{apart}",
        "heads": ("class", first.title, second.title, "difference"),
        "lines": [(c, f"{a[c]:.1f}", f"{b[c]:.1f}", signed(v, 1)) for c, v in difference.per_class.items()],
        **_scatter(first, second),
    }


def _scatter(first: Shown, second: Shown) -> View:
    missing = [s for s in (first, second) if not s.episodes]
    if missing:
        why = "; ".join(f"{s.title}: {s.why}" for s in missing)
        return {"plot": "", "told": f"No picture of single episodes. {why}."}
    others = {(e.run, e.number): e for e in second.episodes}
    dots = []
    for e in first.episodes:
        other = others[e.run, e.number]
        what = f"run {e.run}, episode {e.number}, {e.class_name} ({e.query})"
        dots.append(svg.Dot(e.iou, other.iou, f"{what}: {e.iou:.1f}, {other.iou:.1f}"))
    up, down = sum(d.y > d.x for d in dots), sum(d.y < d.x for d in dots)
    told = f"{len(dots)} episodes: {second.title} is better in {up}, {first.title} in {down}"
    names, rows = (first.title, second.title), (first.row, second.row)
    plot = svg.scatter(dots, names, rows, f"IoU of both in each episode. {told}.")
    return {"plot": plot, "told": f"{told}. A dot is an episode; rest on it for its number."}


def gallery_part(shown: Sequence[Shown], most: int) -> View:
    """Pictures of episodes from worst to best, one card for all heads that drew the episode."""
    every = cards([(s.row, s.result, s.pictures) for s in shown])
    chosen = choose(every, most)
    titles = {s.row: s.title for s in shown}
    rows = {row for c in chosen for row, _ in c.pictures}
    gains = len(rows) == 2 and all(len(c.pictures) == 2 for c in chosen)
    orders = [
        ("iou up", "worst first"),
        ("iou down", "best first"),
        ("class up", "class"),
        ("place up", "run"),
    ]
    if gains:
        one, two = (titles[row] for row, _ in chosen[0].pictures)
        orders += [("gain down", f"{two} ahead most"), ("gain up", f"{one} ahead most")]
    drawn = [_card(card, titles, gains) for card in chosen]
    widest = max((p["width"] for card in drawn for p in card["pictures"]), default=0)
    return {
        "remarks": _about_pictures(shown, every, chosen),
        "orders": orders,
        "cards": drawn,
        "least": min(44, max(16, round(widest / 24))),  # of a card's width, in letters
    }


def _about_pictures(shown: Sequence[Shown], every: Sequence[Card], chosen: Sequence[Card]) -> list[str]:
    """Remarks on how many pictures are shown, and on what they show."""
    there, taken = (sum(len(c.pictures) for c in part) for part in (every, chosen))
    remarks = []
    if taken:
        how = "all" if taken == there else f"chosen evenly from worst to best, of {there}"
        what = (
            "supports with their masks (red), the query with its true mask (red), with the prediction (blue)"
        )
        remarks.append(f"{taken} pictures, {how}. Each: {what}.")
    elif there:
        remarks.append(f"None of {there} pictures asked for.")
    if old := sum(s.old for s in shown):
        remarks.append(f"{old} pictures of earlier tests, whose IoU is no longer the result's, are left out.")
    without = [s for s in shown if not s.pictures]
    if without:
        remarks.append(f"No pictures of {named(without, shown)}; a test with --visualize draws them.")
    return remarks


def _card(card: Card, titles: dict[int, str], gains: bool) -> View:
    some = card.some
    place = f"{fold_name(card.fold)}, {card.shots}-shot, run {some.run}, episode {some.number}"
    return {
        "class_name": some.class_name,
        "place": place + (f", query {some.query}" if some.query else ""),
        "key": f"{card.fold:04}-{card.shots:04}-{some.run:04}-{some.number:07}",
        "iou": f"{card.iou:.2f}",
        "gain": f"{card.pictures[1][1].iou - card.pictures[0][1].iou:.2f}" if gains else "",
        "pictures": [_picture(picture, row, titles[row], place) for row, picture in card.pictures],
    }


def _picture(picture: Picture, row: int, title: str, place: str) -> View:
    source, width, height = data_uri(picture.path)
    what = f"{picture.class_name}, supports, query and prediction of {title}"
    alt = f"{place}: {what}, IoU {picture.iou:.1f} percent"
    shape = {"source": source, "width": width, "height": height, "alt": alt}
    return {"row": row, "title": title, "iou": f"{picture.iou:.1f}", **shape}
