"""What a test prints: every class, the scores, and where they come from."""

import json

import pytest

from fss.report.table import console_table
from tests.make_results import MEASURED


def told(**changes):
    """The lines that are printed of a measured result, without the blanks that align them."""
    content = {**json.loads(MEASURED.read_text(encoding="utf-8")), **changes}
    return [" ".join(line.split()) for line in console_table(content).splitlines()]


def test_every_class_and_score_has_a_line():
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    scores = {**content["scores"], "unseen_classes": ["zebra"], "notes": {"empty_support": 3}}
    lines = told(scores=scores)
    assert lines[0] == "shapes fold 0, cwt, tested with 1 shot(s), trained with 1"
    assert {f"{name} {iou:.2f}" for name, iou in scores["per_class"].items()} <= {*lines}
    assert {"zebra - never seen", "FB-IoU 76.26", "3 episodes: empty support"} <= {*lines}
    assert "mIoU 62.13 +- 1.02 (95%, 5 runs x 200 episodes)" in lines


@pytest.mark.parametrize(("steps", "noted"), [(0, True), (1, False)])
def test_an_untrained_head_is_said_to_be_one(steps, noted):
    checkpoint = {**json.loads(MEASURED.read_text(encoding="utf-8"))["checkpoint"], "steps": steps}
    assert checkpoint["stage"] == "few-shot"
    assert any("no step of training did better" in line for line in told(checkpoint=checkpoint)) == noted


def test_one_run_has_no_interval():
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    one = {"scores": {**content["scores"], "interval": None}, "protocol": {**content["protocol"], "runs": 1}}
    assert "mIoU 62.13 (1 run x 200 episodes)" in told(**one)


@pytest.mark.parametrize(
    ("checkpoint", "first", "origin"),
    [
        ({"external": True}, "trained elsewhere", "external model, labels"),
        ({"converted": True}, "nothing to train", "converted weights, labels"),
        ({}, "nothing to train", "weights as they are, labels"),
        ({"steps": 0}, "nothing to train", "checkpoint of step 0, labels"),
    ],
)
def test_the_origin_is_told(checkpoint, first, origin):
    lines = told(checkpoint=checkpoint, shots={"train": None, "test": 1})
    assert lines[0].endswith(first) and any(line.startswith(origin) for line in lines)
