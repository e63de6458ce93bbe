"""Where marks are drawn: by hand-computed places."""

import re
from xml.etree import ElementTree

import pytest

from fss.report.page.svg import Dot, Frame, bar, curves, scatter, ticks
from fss.report.training import stretches


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]),
        (13, 27, [15, 20, 25]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == expected


def test_a_bar_is_as_wide_as_its_number():
    drawn = ElementTree.fromstring(bar(40.0, 5.0, 9))
    assert drawn.get("class") == "bar c1" and drawn.find("rect").get("width") == "40.00%"
    across = [x for x in drawn.findall("line") if x.get("y1") == x.get("y2")]
    assert [(x.get("x1"), x.get("x2")) for x in across] == [("35.00%", "45.00%")]
    assert "whisker" not in bar(40.0, None, 0)
    assert 'x2="100.00%"' in bar(99.0, 5.0, 0)  # intervals end at the edge


def test_a_frame_maps_its_ranges_onto_pixels():
    frame = Frame(10, 20, 100, 50, (0, 10), (0, 1))
    assert (frame.x(5), frame.y(0), frame.y(0.5), frame.y(7)) == (60, 70, 45, 20)


def test_curves_hold_every_point():
    losses = [(s, 2.0 - s / 100) for s in range(100)]
    drawn = ElementTree.fromstring(curves(stretches(losses), [(0, 10.0), (100, 30.0)], [50], 0, "<t>"))
    band, loss, validation = (x.get("points").split() for x in drawn.findall("polyline"))
    assert (len(band), len(loss), len(validation)) == (100, 50, 2) and len(drawn.findall("circle")) == 2
    heights = [float(p.split(",")[1]) for p in loss]
    assert heights == sorted(heights)  # falling losses go down
    (tested,) = [x for x in drawn.findall("line") if x.get("class") == "tested"]
    middle = sum(float(x.split(",")[0]) for x in validation) / 2
    assert float(tested.get("x1")) == pytest.approx(middle, abs=0.1)
    assert drawn.find("title").text == "<t>"


@pytest.mark.parametrize(("losses", "validations"), [([(0, 1.0)], []), ([], [(0, 0.0)])])
def test_half_a_log_draws_half_a_curve(losses, validations):
    drawn = ElementTree.fromstring(curves(stretches(losses), validations, [], 0, "t"))
    assert len(drawn.findall("polyline")) == 2 * len(losses) + len(validations)
    assert not re.search("nan|inf", ElementTree.tostring(drawn, "unicode"))


def test_dots_have_the_colour_of_the_better_side():
    dots = [Dot(0, 100, "a"), Dot(100, 0, "<b>"), Dot(50, 50, "c")]
    drawn = ElementTree.fromstring(scatter(dots, ("one", "two" * 40), (3, 4), "t"))
    circles = drawn.findall("circle")
    assert [c.get("class") for c in circles] == ["c4", "c3", "equal"]
    assert [c.find("title").text for c in circles] == ["a", "<b>", "c"]
    first, second, middle = ((float(c.get("cx")), float(c.get("cy"))) for c in circles)
    assert first[0] < middle[0] < second[0] and first[1] < middle[1] < second[1]
