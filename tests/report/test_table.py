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
