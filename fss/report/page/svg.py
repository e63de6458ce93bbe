"""Draws bars, learning curves and scatter plots as SVG, in the colours of the page's style (c0 to c7)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

from markupsafe import Markup

from fss.report.training import Stretch

COLOURS = 8  # number of colours in the page's style
_LEFT, _RIGHT, _TOP, _BETWEEN, _BOTTOM = 38, 8, 20, 34, 34  # margins around and between plots, pixels


def colour(index: int) -> str:
    """The CSS class that colours a row's marks."""
    return f"c{index % COLOURS}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers from `low` to `high`, their steps 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-9) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def bar(value: float, half: float | None, index: int) -> Markup:
    """A bar for a percentage, as wide as its cell at 100, with its interval; the number belongs beside it."""
    marks = [_mark("line", "grid", x1=f"{x}%", x2=f"{x}%", y1=0, y2=16) for x in (25, 50, 75)]
    marks.append(_mark("rect", width=_percent(value), y=2, height=12, rx=2))
    if half is not None:
        low, high = _percent(value - half), _percent(value + half)
        marks.append(_mark("line", "whisker", x1=low, x2=high, y1=8, y2=8))
        marks += [_mark("line", "whisker", x1=x, x2=x, y1=4, y2=12) for x in (low, high)]
    return _text(_mark("svg", f"bar {colour(index)}", marks, width="100%", height=16, aria_hidden="true"))


def _mark(
    name: str, kind: str = "", inside: str | Iterable[Element] = (), **attributes: str | float
) -> Element:
    """An element of class `kind` that holds a text or other elements; `_` in an attribute is written `-`."""
    made = Element(name, {"class": kind} if kind else {})
    for key, value in attributes.items():
        made.set(key.replace("_", "-"), str(value))
    if isinstance(inside, str):
        made.text = inside
    else:
        made.extend(inside)
    return made


def _text(picture: Element) -> Markup:
    """A picture as text that a template does not escape again, because ElementTree has."""
    return Markup(tostring(picture, "unicode", short_empty_elements=False))


def _percent(value: float) -> str:
    return f"{min(100.0, max(0.0, value)):.2f}%"


@dataclass(frozen=True)
class Frame:
    """A plot's place in the picture (pixels) and the ranges that it shows."""

    left: float
    top: float
    width: float
    height: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        """Place of a value, pixels from the left."""
        low, high = self.xs
        return round(self.left + self.width * (value - low) / (high - low or 1), 1)

    def y(self, value: float) -> float:
        """Place of a value, pixels from the top; values outside the range lie on the edge."""
        low, high = self.ys
        share = (min(max(value, low), high) - low) / (high - low or 1)
        return round(self.top + self.height * (1 - share), 1)

    def line(self, points: Iterable[tuple[float, float]], kind: str = "line") -> Element:
        """A line through points."""
        return _mark("polyline", kind, points=" ".join(f"{self.x(x)},{self.y(y)}" for x, y in points))

    def rows(self, most: int = 4) -> list[Element]:
        """Lines across at round values, about `most`, with their numbers."""
        drawn, right = [], self.left + self.width
        for v in ticks(*self.ys, most):
            drawn.append(_mark("line", "grid", x1=self.left, x2=right, y1=self.y(v), y2=self.y(v)))
            drawn.append(_mark("text", "right", f"{v:g}", x=self.left - 5, y=self.y(v) + 4))
        return drawn

    def columns(self, title: str) -> list[Element]:
        """Numbers along the lower edge, and what they count."""
        bottom, middle = self.top + self.height, self.left + self.width / 2
        numbers = [_mark("text", "middle", f"{v:,g}", x=self.x(v), y=bottom + 14) for v in ticks(*self.xs)]
        return [*numbers, _mark("text", "middle", title, x=middle, y=bottom + 29)]


def curves(
    losses: Sequence[Stretch], validations: Sequence[tuple[int, float]], tested: Sequence[int], index: int,
    title: str,
) -> Markup:  # fmt: skip
    """Training loss (mean, and a band from lowest to highest) over validation mIoU, on one axis of steps.

    Args:
        tested: steps of the checkpoints whose results are shown: dashed lines.
        title: what a screen reader says of it.
    """
    width, height = 440, 110
    every = [s.step for s in losses] + [float(s) for s, _ in validations] + [float(s) for s in tested]
    xs = (0.0, max([1.0, *every]))
    place, drawn = _TOP, list[Element]()
    frame = Frame(_LEFT, place, width - _LEFT - _RIGHT, height, xs, (0, 1))
    if losses:
        # The axis ends with the means, because a first loss may be far above the rest.
        frame = Frame(_LEFT, place, frame.width, height, xs, _range([s.mean for s in losses]))
        around = [(s.step, s.high) for s in losses] + [(s.step, s.low) for s in reversed(losses)]
        mean = frame.line([(s.step, s.mean) for s in losses])
        drawn += [_named(frame, "training loss"), *frame.rows(), frame.line(around, "band"), mean]
        place += height + _BETWEEN
    if validations:
        frame = Frame(_LEFT, place, frame.width, height, xs, _range([v for _, v in validations]))
        dots = [_mark("circle", cx=frame.x(s), cy=frame.y(v), r=3) for s, v in validations]
        line = frame.line([(float(s), v) for s, v in validations])
        drawn += [_named(frame, "validation mIoU, %"), *frame.rows(), line, *dots]
        place += height + _BETWEEN
    end = place - _BETWEEN
    marks = [_mark("line", "tested", x1=frame.x(s), x2=frame.x(s), y1=_TOP, y2=end) for s in tested]
    parts = [*drawn, *marks, *frame.columns("step")]
    return _plot(f"plot {colour(index)}", title, parts, width, end + _BOTTOM)


def _plot(kind: str, title: str, parts: Iterable[Element], width: float, height: float) -> Markup:
    """A plot of `width` x `height` pixels, which a page scales; `title` is for screen readers."""
    inside = [_mark("title", inside=title), *parts]
    box = f"0 0 {width} {height}"
    return _text(_mark("svg", kind, inside, viewBox=box, role="img", aria_label=title))


def _named(frame: Frame, text: str) -> Element:
    return _mark("text", "name", text, x=frame.left, y=frame.top - 7)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: from 0, or from a tenth below values far from 0, to a tenth above them."""
    low, high = min(values), max(values)
    room = (high - low or 1) * 0.1
    return (0.0 if low - 2 * (high - low) < 0 else low - room), high + room


@dataclass(frozen=True)
class Dot:
    """A point of a scatter plot, both numbers in percent; `title` shows while the mouse rests on it."""

    x: float
    y: float
    title: str


def scatter(dots: Sequence[Dot], names: tuple[str, str], colours: tuple[int, int], title: str) -> Markup:
    """A plot of each dot's second number over its first, 0 to 100, in the colour of the higher one."""
    side, out = 400, (0.0, 100.0)
    frame = Frame(48, 10, side, side, out, out)
    grid = [_mark("line", "grid", x1=frame.x(v), x2=frame.x(v), y1=10, y2=10 + side) for v in ticks(*out)]
    diagonal = frame.line([(0, 0), (100, 100)], "diagonal")
    marks = [_dot(frame, dot, colours) for dot in dots]
    turned = f"translate(13 {10 + side / 2}) rotate(-90)"
    up = _mark("text", "middle", f"IoU of {_short(names[1])}, %", transform=turned)
    columns = frame.columns(f"IoU of {_short(names[0])}, %")
    parts = [*frame.rows(5), *grid, diagonal, *marks, *columns, up]
    return _plot("plot scatter", title, parts, side + 60, side + 48)


def _dot(frame: Frame, dot: Dot, colours: tuple[int, int]) -> Element:
    title = _mark("title", inside=dot.title)
    return _mark("circle", _side(dot, colours), [title], cx=frame.x(dot.x), cy=frame.y(dot.y), r=3.5)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:47]}…"


def _side(dot: Dot, colours: tuple[int, int]) -> str:
    if dot.x == dot.y:
        return "equal"
    return colour(colours[1] if dot.y > dot.x else colours[0])
