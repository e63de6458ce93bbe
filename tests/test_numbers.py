"""Every measured number of README and docs is what its file says, and no other decimals stand there."""

import importlib
import json
import re
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "studies"))  # a program's own folder, as when it is run
tables = importlib.import_module("tables")

PAGES = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in tables.pages()}
DECIMAL = re.compile(r"\d\.\d|\d[eE]-\d")
# Decimals in running text that are settings, versions or the papers', word by word.
SETTINGS = {
    "README.md": ["Python 3.10 to 3.13, PyTorch 2.6"],
    "docs/benchmarks.md": ["equal those of the plain rendering to 1e-4 and 1e-3"],
    "docs/export.md": ["more than 1e-3 of the largest, or fewer than 99.9% equal pixels"],
    "docs/install.md": ["Python 3.10 to 3.13, PyTorch 2.6"],
    "docs/migrate.md": [
        "From 0.1 to 0.2", "results of 0.1 are read", "trained with 0.1 was", "begun with 0.1 goes",
        "0.025 (PASCAL) and 0.05 (COCO)", "a row in 0.1 may",
    ],
    "docs/protocol.md": ["2.776 for 5 runs"],
    "docs/pseudo-labels.md": [
        "between 0.55 and 1 bright", "blotches of 0.3 to 0.8 in every other", "edges blurred by 1.5 px",
    ],
    "docs/reproduce.md": ["to 1e-4 relative error (weights after 200 steps of the inner loop: 1e-3)"],
    "docs/scribbles.md": ["arXiv 2007.09990", "at least 0.6 times as deep"],
    "docs/votes.md": [
        "stage 2 with weight 0.7", "temperature τ = 0.035", "a share of 0.7 of its answer",
        "(temperature 0.08, on", "a caution of 0.03 IoU", "ε = 1e-4",
    ],
}  # fmt: skip


def without(text, *patterns):
    for pattern in patterns:
        text = re.sub(pattern, " ", text, flags=re.S | re.M)
    return text


def bare(text):
    """A page without what is made of files, code, targets of links, and addresses."""
    text = without(text, r"<!-- measured: \S+ -->.*?<!-- end -->", r"^```.*?^```", r"`[^`\n]+`")
    return without(text, r"\]\([^)]*\)", r"https?://\S+", r"\d+\.\d+\.\d+\.\d+")


def unknown(name, text):
    """Decimals of a page that come from no file and are not declared to be settings."""
    tabled = [line for line in loose_tables(text) if DECIMAL.search(bare(line))]
    prose = " ".join(without(bare(text), r"^\|[^\n]*", r"<!--.*?-->").split())
    for phrase in [*tables.PHRASES.get(name, list)(), *SETTINGS.get(name, [])]:
        prose = prose.replace(" ".join(bare(phrase).split()), " ")
    return tabled + [prose[max(0, m.start() - 30) : m.end() + 10] for m in DECIMAL.finditer(prose)]


def loose_tables(text):
    """Lines of tables outside of measured blocks, but for those that say whose numbers they hold."""
    declared = r"<!-- (?:published: \S+|settings) -->\n+(?:\|[^\n]*\n)+"
    return [x for x in without(bare(text), declared).splitlines() if x.startswith("|")]


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_what_their_files_say(name):
    assert tables.rewritten(PAGES[name]) == PAGES[name], "python studies/tables.py writes it anew"


@pytest.mark.parametrize("name", tables.PLOTS)
def test_plots_are_what_their_files_say(name):
    drawn = (ROOT / name).read_text(encoding="utf-8")
    assert drawn == tables.PLOTS[name](), "python studies/tables.py draws it anew"
    assert xml.etree.ElementTree.fromstring(drawn).tag.endswith("svg")
    assert f"({Path(name).name})" in "".join(PAGES.values())


@pytest.mark.parametrize("name", tables.PHRASES)
def test_phrases_are_what_their_files_say(name):
    text = " ".join(PAGES[name].split())
    # A link may stand in the middle of a phrase.
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for phrase in tables.PHRASES[name]():
        assert phrase in plain


@pytest.mark.parametrize("name", PAGES)
def test_no_other_decimals(name):
    assert unknown(name, PAGES[name]) == []


def test_every_table_has_its_place():
    places = [n for text in PAGES.values() for n in re.findall(r"<!-- measured: (\S+) -->", text)]
    assert sorted(places) == sorted(tables.TABLES)
    for text in PAGES.values():
        assert text.count("<!-- measured: ") == text.count("<!-- end -->")


def test_published_numbers_stand_in_their_file():
    found = []
    for text in PAGES.values():
        for source, lines in re.findall(r"<!-- published: (\S+) -->\n+((?:\|[^\n]*\n)+)", text):
            numbers = re.findall(r"\d+\.\d+", (ROOT / source).read_text(encoding="utf-8"))
            found += re.findall(r"\d+\.\d+", lines)
            assert set(re.findall(r"\d+\.\d+", lines)) <= set(numbers)
    assert found


@pytest.mark.parametrize("path", sorted((ROOT / "studies/results").glob("*.json")), ids=lambda p: p.stem)
def test_studies_tell_when_and_at_which_commit(path):
    told = json.loads(path.read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["date"])
    assert re.fullmatch(r"[0-9a-f]{40}\+?", told["environment"]["commit"])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("It gives 61.9 mIoU.", 1),
        ("| a | 61.9 |\n|---|---|\n", 1),
        ("<!-- settings -->\n\n| lr | 0.1 |\n", 0),
        ("`lr=0.1`, [1.5](https://a.b/1.5)\n\n```\n1.5\n```\n", 1),
        ("<!-- measured: x -->\n| 1.5 |\n<!-- end -->\n", 0),
        ("off by 1e-3", 1),
    ],
)
def test_the_guard_sees_them(text, wrong):
    assert len(unknown("no page", text)) == wrong


def shapes_results(name):
    files = [ROOT / f"docs/results/shapes_fold{fold}_{name}.json" for fold in range(4)]
    return [json.loads(f.read_text(encoding="utf-8")) if f.is_file() else None for f in files]


@pytest.mark.parametrize("fold", range(4))
def test_columns_share_their_episodes_and_networks(fold):
    """The tables of `shapes` compare like with like."""
    for shots in (1, 5):
        column = [shapes_results(f"{name}_{shots}shot")[fold] for name in tables.HEADS.values()]
        assert len({r["protocol"]["plan_sha256"] for r in column}) == 1
        assert len({r["frozen_sha256"] for r in column}) == 1
        assert {r["shots"]["test"] for r in column} == {shots}
        assert {r["shots"]["train"] for r in column} == {1, None}
    ours = shapes_results("cwt_1shot")[fold]["protocol"]["plan_sha256"]
    study = [r for name in tables.BUILT.values() if (r := shapes_results(name)[fold])]
    assert {r["protocol"]["plan_sha256"] for r in study} == {ours}


def test_a_row_of_its_own_says_what_the_table_says():
    heads = importlib.import_module("heads_tables")
    text = heads.row_of("shapes", "hsnet")
    lines = re.findall(r"^\| hsnet (\| [15] \|.*\|)$", text, re.M)
    assert len(lines) == 2
    for line in lines:
        assert f"| HSNet {line}" in PAGES["docs/zoo.md"]
    other = heads.row_of("shapes", "votes")
    mine, theirs = (
        re.search(rf"^\| {name} \| (.)([\d.]+ ± [\d.]+) \|", rows, re.M)
        for name, rows in (("votes", text), ("HSNet", other))
    )
    assert mine[2] == theirs[2] and {mine[1], theirs[1]} == {"+", "−"}
    assert heads.row_of("shapes", "nothing") == "nothing: not yet on all four folds of shapes"
