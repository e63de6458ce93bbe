"""The tables of `shapes` compare like with like: equal episodes and networks in each column."""

import json
from pathlib import Path

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


def results(name):
    files = [ROOT / f"docs/results/shapes_fold{fold}_{name}.json" for fold in range(4)]
    return [json.loads(f.read_text(encoding="utf-8")) if f.is_file() else None for f in files]


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
