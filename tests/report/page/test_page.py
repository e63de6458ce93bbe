"""The page: well-formed, alone, true to the results, and of use where things are missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from fss.cli import main
from fss.metrics import interval95
from fss.report.episodes import class_intervals
from fss.report.page.page import report_page
from fss.report.results import read_results
from tests.make_results import CLASSES, MEASURED, make_episodes, make_result

_EMPTY = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes, text by element, and whether all that was opened is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")
        if tag not in _EMPTY:
            self.open.append((tag, len(self.texts) - 1))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, index in self.open:
            self.texts[index] += data

    def all(self, tag, **wanted):
        """Text and attributes of elements."""
        pairs = zip(self.elements, self.texts, strict=True)
        return [
            (text, has)
            for (t, has), text in pairs
            if t == tag and all(has.get(k) == v for k, v in wanted.items())
        ]

    def part(self, name):
        return self.all("section", id=name)[0][0]


def page_of(*paths, pictures=60):
    return Page(report_page(read_results(paths), pictures))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two results on one plan."""
    place = tmp_path_factory.mktemp("pair")
    return make_result(place / "a", "cwt", 10), make_result(place / "b", "prototype", 30)


def test_one_result_with_everything(tmp_path):
    path = make_result(tmp_path)
    page, (result,) = page_of(path), read_results([path])
    number = f"{sum(result.runs) / 3:.1f} ± {interval95(result.runs):.1f}"
    assert number in page.part("results") and page.all("strong")[0][0] == number
    halves = class_intervals(make_episodes(10))
    rows = [text for text, _ in page.all("tr")]
    for name, iou in result.content["scores"]["per_class"].items():
        assert f"{name}{iou:.1f} ± {halves[name]:.1f}" in rows
    widths = [has["width"] for _, has in page.all("rect")]
    assert widths == [f"{iou:.2f}%" for iou in result.content["scores"]["per_class"].values()]
    assert "500 steps, best validation mIoU 30.0" in page.part("training")
    assert len(page.all("polyline")) == 3
    for key, value in result.protocol.items():
        assert f"{key}{value if isinstance(value, str) else json.dumps(value)}" in rows


def test_nothing_is_fetched_and_nothing_breaks_out(pair):
    text = report_page(read_results(pair))
    page = Page(text)
    for _, has in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert has.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))
    assert not re.search(r"https?:|url\(|@import|<link|<b>", text)
    assert len(page.all("script")) == 1 and CLASSES[0] in page.part("classes")


def test_pictures_say_what_they_show(pair):
    page = page_of(pair[0])
    images = page.all("img")
    assert len(images) == 12 and all(has["alt"] and has["width"] for _, has in images)
    cards = page.all("figure", **{"class": "card"})
    ious = [float(has["data-iou"]) for _, has in cards]
    assert ious == sorted(e.iou for e in make_episodes(10))
    assert {has["data-class"] for _, has in cards} == set(CLASSES)
    assert "12 pictures, all" in page.part("episodes")
    fewer = page_of(pair[0], pictures=5)
    assert len(fewer.all("img")) == 5
    assert "5 pictures, chosen evenly from worst to best, of 12" in fewer.part("episodes")
    assert "None of 12 pictures" in page_of(pair[0], pictures=0).part("episodes")


def test_two_results_on_one_plan_are_paired(pair):
    page = page_of(*pair)
    (plot,) = page.all("svg", **{"class": "plot scatter"})
    dots = [has for text, has in page.all("circle") if has["r"] == "3.5"]
    assert len(dots) == len(make_episodes(10)) and {has["class"] for has in dots} == {"c1"}
    assert f"run 2, episode 3, {CLASSES[0]} (q 3): 27.0, 47.0" in plot[0]
    assert "+20.00 ± 0.00 (95%, 3 runs in pairs) points of mIoU: prototype less cwt" in page.part("pair")
    assert "prototype is better in 12, cwt in 0" in page.part("pair")
    back = page_of(*pair[::-1])
    assert "−20.00 ± 0.00 (95%, 3 runs in pairs) points of mIoU: cwt less prototype" in back.part("pair")
    gains = [float(has["data-gain"]) for _, has in page.all("figure", **{"class": "card"})]
    assert gains == [20.0] * 12


def test_results_of_other_folds_are_not_paired(pair, tmp_path):
    page = page_of(pair[0], make_result(tmp_path, "cwt", 40, fold=1))
    assert not page.all("section", id="pair") and "No mean where a fold is missing" in page.part("results")


def test_old_results_say_what_they_lack(pair, tmp_path):
    old = make_result(tmp_path, "prototype", 30, episodes=False, log=False, pictures=False)
    page = page_of(pair[0], old)
    assert not page.all("svg", **{"class": "plot scatter"})
    assert "No picture of single episodes. prototype: no episodes.csv beside it" in page.part("pair")
    assert "+20.00" in page.part("pair")
    assert "No interval for prototype: no episodes.csv beside it" in page.part("classes")
    assert "No log.jsonl beside or above the result of prototype" in page.part("training")
    assert "No pictures of prototype; a test with --visualize" in page.part("episodes")


def test_a_measured_result_alone(tmp_path):
    page, content = page_of(MEASURED), json.loads(MEASURED.read_text())
    for name, iou in content["scores"]["per_class"].items():
        assert f"{name}{iou:.1f}" in page.part("classes")
    assert f"{content['scores']['miou']:.1f} ± {content['scores']['interval']:.1f}" in page.part("results")
    assert "5 runs of 200 episodes, seed 2021" in page.part("protocol")


def test_command_line(pair, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", *map(str, pair), "--out", str(out), "--pictures", "4"]) == 0
    assert "2 results -> " in capsys.readouterr().out and len(Page(out.read_text()).all("img")) == 4
    assert main(["report", "--compare", *map(str, pair), "--out", str(out)]) == 0
    assert Page(out.read_text()).all("section", id="pair")
    assert main(["report", str(pair[0]), "--out", str(out), "--pictures", "-1"]) == 2
    assert "--pictures -1: allowed are 0 and above" in capsys.readouterr().err
    other = make_result(tmp_path / "other", "asgnet", 5, fold=1)
    out.unlink()
    assert main(["report", "--compare", str(pair[0]), str(other), "--out", str(out)]) == 2
    assert "nothing to pair" in capsys.readouterr().err and not out.exists()


@pytest.fixture(params=["light", "dark"])
def opened(request, pair, tmp_path, browser):
    """The page of a pair as a browser shows it, without any network, and all that it asked for."""
    (tmp_path / "page.html").write_text(report_page(read_results(pair)), encoding="utf-8")
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, color_scheme=request.param, offline=True
    )
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: asked.append(f"error {error}"))
    tab.on("console", lambda message: asked.append(f"console {message.text}"))
    tab.goto(f"file://{tmp_path}/page.html")
    yield tab, asked
    context.close()


def test_a_browser_sorts_the_cards_and_asks_for_nothing(opened):
    tab, asked = opened

    def order(key):
        return tab.eval_on_selector_all(".card", f"cards => cards.map(c => c.dataset.{key})")

    tab.select_option("#order", "iou down")
    ious = [float(x) for x in order("iou")]
    assert ious == sorted(ious, reverse=True) and len(ious) == 12
    tab.select_option("#order", "class up")
    names = order("class")
    assert len([n for n, after in zip(names, [*names[1:], None], strict=True) if n != after]) == 3
    tab.select_option("#order", "place up")
    assert order("place") == sorted(order("place"))
    tab.select_option("#order", "iou up")
    assert [float(x) for x in order("iou")] == ious[::-1]
    assert tab.eval_on_selector_all("img", "all => all.every(i => i.complete && i.naturalWidth > 0)")
    assert (
        tab.evaluate("document.documentElement.scrollWidth") <= 390
    )  # nothing hangs over the edge of a phone
    assert len([a for a in asked if a.startswith("file://")]) == 1
    assert all(a.startswith(("file://", "data:")) for a in asked)


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """The page of two heads with long names on all folds of PASCAL, with published rows."""
    place = tmp_path_factory.mktemp("folds")
    paths = [
        make_result(place / f"{head}{fold}", head, 30, fold, pictures=False)
        for head in ("a_head_by_a_rather_long_name", "cwt")
        for fold in range(4)
    ]
    for path in paths:
        content = json.loads(path.read_text())
        content["protocol"]["data"] = "pascal"
        path.write_text(json.dumps(content))
    page = place / "page.html"
    page.write_text(report_page(read_results(paths)), encoding="utf-8")
    return page


@pytest.mark.parametrize("width", [360, 400])
def test_every_score_is_in_sight_on_a_phone(folds, browser, width):
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.goto(f"file://{folds}")
    for part in ("#results", "#origins"):
        cells = tab.locator(f"{part} tbody td").all()
        seen = [(c, box) for c in cells if (box := c.bounding_box()) and c.inner_text()]
        assert len(seen) >= 32
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for _, box in seen)
        # The heading stands at the cell, because the row of headings is away.
        assert all("none" not in c.evaluate("c => getComputedStyle(c, '::before').content") for c, _ in seen)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    heads = (
        tab.locator("#results tbody tr")
        .first.locator("td")
        .evaluate_all("all => all.map(c => c.dataset.head)")
    )
    assert heads == tab.locator("#results thead th").evaluate_all(
        "all => all.slice(1).map(h => h.textContent)"
    )
    tab.close()


def test_the_page_is_whole_without_scripts(pair, tmp_path, browser):
    (tmp_path / "page.html").write_text(report_page(read_results(pair)), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"file://{tmp_path}/page.html")
    assert tab.locator(".card").count() == 12 and not tab.locator("#order").is_visible()
    context.close()
