"""Tables in README and docs/shapes.md are what docs/results says, on equal episodes and networks."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Title in the tables -> name of the result files.
HEADS = {
    "prototype": "prototype",
    "CWT without its transformer": "cwt_plain",
    "CWT": "cwt",
    "ASGNet, one prototype": "asgnet_one",
    "ASGNet": "asgnet",
}
STUDY = {
    "random backbone, norms' statistics set; plain inner loop": "random_plain",
    "random backbone, norms' statistics set; transformer, 60 s of episodes": "random_transformer",
    "trained 210 s; transformer as published, 60 s of episodes": "trained_published",
    "trained 210 s; transformer, 20 minutes of episodes": "trained_transformer_20min",
}
EVERY = [(f"{title} | {k}", f"{name}_{k}shot") for title, name in HEADS.items() for k in (1, 5)]
EVERY += list(STUDY.items())


def results(name):
    files = [ROOT / f"docs/results/shapes_fold{fold}_{name}.json" for fold in range(4)]
    return [json.loads(f.read_text(encoding="utf-8")) if f.is_file() else None for f in files]


@pytest.mark.parametrize(("title", "name"), EVERY)
def test_row_is_what_was_measured(title, name):
    got = results(name)
    cells = [f"{r['scores']['miou']:.1f} ± {r['scores']['interval']:.1f}" if r else "" for r in got]
    mean = f"{sum(r['scores']['miou'] for r in got) / 4:.1f}" if all(got) else ""
    line = " ".join(("| " + " | ".join([title, *cells, mean]) + " |").split())
    assert line in (ROOT / "docs/shapes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("title", "name"), HEADS.items())
def test_means_on_the_front_page(title, name):
    every = [results(f"{name}_{k}shot") for k in (1, 5)]
    means = [f"{sum(r['scores']['miou'] for r in got) / 4:.1f}" for got in every]
    line = "| " + " | ".join([title, *means]) + " |"
    assert line in (ROOT / "README.md").read_text(encoding="utf-8")


def test_columns_share_their_episodes_and_networks():
    for fold in range(4):
        for shots in (1, 5):
            column = [results(f"{name}_{shots}shot")[fold] for name in HEADS.values()]
            assert len({r["protocol"]["plan_sha256"] for r in column}) == 1
            assert len({r["frozen_sha256"] for r in column}) == 1
            assert {r["shots"]["test"] for r in column} == {shots}
            assert {r["shots"]["train"] for r in column} == {1, None}
        ours = results("cwt_1shot")[fold]["protocol"]["plan_sha256"]
        study = [r for name in STUDY.values() if (r := results(name)[fold])]
        assert {r["protocol"]["plan_sha256"] for r in study} == {ours}
