"""The README's table is what the result files in docs/results say, on equal episodes."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = {
    "random backbone, norms' statistics set; plain inner loop": "random_plain",
    "trained 210 s; plain inner loop": "trained_plain",
    "trained 210 s; transformer, 60 s of episodes (the default)": "trained_transformer",
    "trained 210 s; transformer, 20 minutes of episodes": "trained_transformer_20min",
    "trained 210 s; transformer as published, 60 s of episodes": "trained_published",
    "random backbone, norms' statistics set; transformer, 60 s of episodes": "random_transformer",
}


def results(row):
    files = [ROOT / f"docs/results/shapes_fold{fold}_{row}.json" for fold in range(4)]
    return [json.loads(f.read_text(encoding="utf-8")) if f.is_file() else None for f in files]


@pytest.mark.parametrize("title", ROWS)
def test_row_is_what_was_measured(title):
    got = results(ROWS[title])
    cells = [f"{r['scores']['miou']:.1f} ± {r['scores']['interval']:.1f}" if r else "" for r in got]
    mean = f"{sum(r['scores']['miou'] for r in got) / 4:.1f}" if all(got) else ""
    line = "| " + " | ".join([title, *cells, mean]) + " |"
    written = (ROOT / "README.md").read_text(encoding="utf-8").replace("|  |", "| |")
    while "|  |" in line:
        line = line.replace("|  |", "| |")
    assert line in written


def test_columns_share_their_episodes():
    for fold in range(4):
        plans = {r["protocol"]["plan_sha256"] for row in ROWS.values() if (r := results(row)[fold])}
        assert len(plans) == 1
