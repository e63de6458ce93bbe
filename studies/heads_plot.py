"""A plot of heads against each other: mIoU over the seconds of a test episode, from what was measured."""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

from heads_tables import METHODS, SHOTS, score, trainings
from measured import RESULTS

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 56, 226, 22, 54
Scale = Callable[[float], float]
COLOURS = {1: "#0b6e99", 5: "#c2571a"}


class Point(NamedTuple):
    """A head with a number of supports: seconds, mIoU and half its interval."""

    title: str
    shots: int
    seconds: float
    miou: float
    half: float


def points(name: str) -> list[Point]:
    """All heads whose costs and scores are known."""
    costs = json.loads((RESULTS / f"heads/costs_{name}.json").read_text(encoding="utf-8"))["heads"]
    every = []
    for title, head in METHODS.items():
        for shots in SHOTS:
            own = trainings(name, head, shots)
            if own and head in costs:
                value = score(own)
                seconds = costs[head][str(shots)]["kept_seconds"]
                every.append(Point(title, shots, seconds, value.mean, value.interval or 0))
    return every


def svg(name: str) -> str:
    """The plot as SVG: time on a logarithmic scale, one and five shots of a head joined by a line."""
    every = points(name)
    low = min(math.log10(p.seconds) for p in every) - 0.1
    high = max(math.log10(p.seconds) for p in every) + 0.1
    top = 10 * math.ceil(max(p.miou + p.half for p in every) / 10)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(seconds) - low) / (high - low)

    def y(miou: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * miou / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="16" role="img">',
        f"<title>mIoU over the time of a test episode, {name}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for value in range(0, top + 1, 20):
        parts += [
            f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#444">{value}</text>',
        ]
    for seconds in (0.01, 0.03, 0.1, 0.3, 1, 3):
        if low <= math.log10(seconds) <= high:
            label = f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.0f} s"
            parts += [
                f'<path d="M{x(seconds):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>',
                f'<text x="{x(seconds):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" '
                f'fill="#444">{label}</text>',
            ]
    parts += [_joined(title, [p for p in every if p.title == title], x, y) for title in METHODS]
    parts += _names(every, x, y)
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts += [
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#444">a test episode on one core, '
        "photos kept</text>",
        f'<text x="16" y="{TOP + 4}" fill="#444">mIoU</text>',
    ]
    for i, (shots, colour) in enumerate(COLOURS.items()):
        at = TOP + 10 + 22 * i
        parts += [
            f'<circle cx="{LEFT + 16}" cy="{at}" r="5" fill="{colour}"/>',
            f'<text x="{LEFT + 28}" y="{at + 4}" fill="#222">{shots} shot{"s" * (shots > 1)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _joined(title: str, own: list[Point], x: Scale, y: Scale) -> str:
    """A head's points with their intervals, and the line between them."""
    if not own:
        return ""
    line = " L".join(f"{x(p.seconds):.1f} {y(p.miou):.1f}" for p in own)
    parts = [f'<g><title>{title}</title><path d="M{line}" stroke="#999" fill="none"/>']
    for p in own:
        at, colour = f"{x(p.seconds):.1f}", COLOURS[p.shots]
        whiskers = f"M{at} {y(p.miou - p.half):.1f}V{y(p.miou + p.half):.1f}"
        parts += [
            f'<path d="{whiskers}" stroke="{colour}"/>',
            f'<circle cx="{at}" cy="{y(p.miou):.1f}" r="5" fill="{colour}"/>',
        ]
    return "".join([*parts, "</g>"])


def _names(every: list[Point], x: Scale, y: Scale) -> list[str]:
    """Names on the right in the order of their heights, each with a line to its point of most shots."""
    last = sorted((p for p in every if p.shots == max(SHOTS)), key=lambda p: -p.miou)
    parts, height = [], TOP - 10.0
    for i, p in enumerate(last):
        room = HEIGHT - BOTTOM - 20 * (len(last) - 1 - i)
        height = min(max(height + 20, y(p.miou)), room)
        start, end = f"{x(p.seconds) + 6:.1f} {y(p.miou):.1f}", f"{WIDTH - RIGHT + 8} {height:.1f}"
        parts += [
            f'<path d="M{start}L{end}" stroke="#bbb" stroke-width="0.7"/>',
            f'<text x="{WIDTH - RIGHT + 12}" y="{height + 4:.1f}" fill="#222">{p.title}</text>',
        ]
    return parts
