"""Plot and table of how cost grows, from what `measure_growth.py` measured."""

import math
from collections.abc import Sequence

from measured import of_study, study, table

PANELS = {
    "supports": "supports of a class", "side": "side at which photos are seen, px",
    "classes": "classes at once", "cells": "cells of the compared map", "photos": "photos in a run",
}  # fmt: skip
SERIES = {"photo_seconds": ("time", "#0b6e99"), "photo_gib": ("memory", "#c2571a")}
WIDTH, PANEL, GAP, LEFT, TOP = 760, 240, 78, 52, 34  # pixels; panels are as wide as two fit
FITTED = 3  # last values, whose slope is the exponent


def measured(what: str, key: str) -> list[tuple[int, float]]:
    """Number and value, from the smallest number on."""
    values_of = study("growth")["grows"][what]
    return sorted((int(number), values[key]) for number, values in values_of.items())


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Slope of the last values over their numbers, both as logarithms, by least squares."""
    pairs = [(math.log(n), math.log(v)) for n, v in points[-FITTED:]]
    x, y = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    return sum((a - x) * (b - y) for a, b in pairs) / sum((a - x) ** 2 for a, _ in pairs)


def growth_table() -> str:
    """Seconds and memory at the ends of each range, and their exponents."""
    lines = []
    for what, title in PANELS.items():
        time, memory = (measured(what, key) for key in SERIES)
        numbers = " to ".join(f"{n:,}" for n in (time[0][0], time[-1][0]))
        ranges = [f"{_short(points[0][1])} to {_short(points[-1][1])}" for points in (time, memory)]
        powers = [_power(points) for points in (time, memory)]
        lines.append([title, numbers, ranges[0], powers[0], ranges[1], powers[1]])
    heads = ["what grows", "from, to", "seconds", "exponent", "GiB", "exponent"]
    return table(heads, lines) + f"\n\n{of_study('growth')}"


def _power(points: Sequence[tuple[int, float]]) -> str:
    return f"{exponent(points):.1f}".replace("-0.0", "0.0")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def svg() -> str:
    """A panel for each thing that grows: time and memory as multiples of the first, both axes logarithmic."""
    rows = (len(PANELS) + 1) // 2
    height = TOP + rows * (PANEL + GAP) - 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="15" role="img">',
        "<title>How time and memory of one's own photos grow</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    wide = (WIDTH - 2 * LEFT - 40) // 2
    for i, what in enumerate(PANELS):
        parts += _panel(what, LEFT + i % 2 * (wide + LEFT + 20), TOP + i // 2 * (PANEL + GAP), wide)
    return "\n".join([*parts, "</svg>", ""])


def _panel(what: str, left: int, top: int, wide: int) -> list[str]:
    """One panel, its upper left corner at (left, top)."""
    every = {key: measured(what, key) for key in SERIES}
    factors = {key: [(n, v / points[0][1]) for n, v in points] for key, points in every.items()}
    most = max(v for points in factors.values() for _, v in points)
    least = min(v for points in factors.values() for _, v in points)
    low, high = math.log10(min(least, 1)) - 0.05, math.log10(max(most, 2)) + 0.1
    numbers = [n for n, _ in every["photo_seconds"]]
    first, last = math.log10(numbers[0]), math.log10(numbers[-1])

    def x(n: float) -> float:
        return left + wide * (math.log10(n) - first) / (last - first)

    def y(v: float) -> float:
        return top + PANEL - PANEL * (math.log10(v) - low) / (high - low)

    parts = [
        f'<text x="{left}" y="{top - 12}" fill="#222">{PANELS[what]}</text>',
        f'<path d="M{left} {top}V{top + PANEL}H{left + wide}" stroke="#888" fill="none"/>',
    ]
    for value in (1, 2, 5, 10, 30, 100, 300, 1000, 3000, 10_000):
        if low <= math.log10(value) <= high and _shown(value, high - low):
            parts += [
                f'<path d="M{left} {y(value):.1f}H{left + wide}" stroke="#eee"/>',
                f'<text x="{left - 6}" y="{y(value) + 5:.1f}" text-anchor="end" fill="#444">{value:,}</text>',
            ]
    for n in numbers:
        parts.append(
            f'<text x="{x(n):.1f}" y="{top + PANEL + 20}" text-anchor="middle" fill="#444">{n:,}</text>'
        )
    for row, (key, (title, colour)) in enumerate(SERIES.items()):
        line = " L".join(f"{x(n):.1f} {y(v):.1f}" for n, v in factors[key])
        parts.append(f'<path d="M{line}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x(n):.1f}" cy="{y(v):.1f}" r="4" fill="{colour}"/>' for n, v in factors[key]]
        text = f"{title}, exponent {_power(every[key])}"
        parts.append(f'<text x="{left + 12}" y="{top + 20 + 20 * row}" fill="{colour}">{text}</text>')
    return parts


def _shown(value: int, span: float) -> bool:
    """Whether a grid line is drawn: over a long range powers of ten alone."""
    return span < 1.5 or math.log10(value).is_integer()
