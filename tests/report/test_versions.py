"""Results of every version are read, and their networks are told apart alike in every spelling."""

import json
from pathlib import Path

import pytest

from fss.errors import UserError
from fss.report.results import Result, make_rows, read_results
from fss.report.versions import network_of, one_spelling

MEASURED = sorted((Path(__file__).parent.parent.parent / "docs/results").glob("*.json"))
EARLY = next(p for p in MEASURED if p.name == "shapes_fold0_random_transformer.json")
NECK = {"type": "ppm", "channels": 256, "dropout": 0.1}
OLD = {
    "config": {
        "backbone": {"layers": 50, "stem": "auto", "weights": "random", "stride": 8, "stage1": True,
                     "base": None, "vit": "none", "vit_size": 224},
        "neck": {**NECK, "align": True, "stride": 8, "auxiliary": False, "gate": "conv", "options": {}},
    },
    "checkpoint": {"stage": "few-shot", "layers": 50, "stem": "deep", "neck": NECK, "head": "cwt",
                   "head_options": {"steps": 200}, "steps": 7},
}  # fmt: skip
NEW = {
    "config": {
        "backbone": {"type": "resnet50", "weights": "random", "stem": None, "stride": 8},
        "network": "base",
        "neck": {"type": "ppm", "channels": 256},
    },
    "checkpoint": {
        "stage": "few-shot", "backbone": {"type": "resnet50", "stem": "deep", "stride": 8}, "neck": NECK,
        "head": {"type": "cwt", "steps": 200}, "steps": 7,
    },
}  # fmt: skip


def result(told, fold=0, head="cwt"):
    """A small result of one run."""
    content = {
        "protocol": {"data": "shapes", "fold": fold, "folds": 2, "shots": 1, "runs": 1, "episodes": 4,
                     "seed": 1, "label_size": "original", "plan_sha256": "ab", "published_list": None},
        "scores": {"runs": [{"miou": 50.0}], "fb_iou": 60.0, "per_class": {"a": 50.0}},
        "head": {"type": head}, "shots": {"train": 1, "test": 1}, "frozen_sha256": "00", **told,
    }  # fmt: skip
    return Result(Path(f"{fold}.json"), content)


def changed(told, section, **values):
    """A copy with settings of the configuration changed."""
    config = {**told["config"], section: {**told["config"][section], **values}}
    return {**told, "config": config}


@pytest.mark.parametrize("path", MEASURED, ids=lambda p: p.stem)
def test_every_measured_result_is_read_on_its_own(path):
    (row,) = make_rows(read_results([path]))
    assert row.tested == json.loads(path.read_text())["protocol"]["shots"]


def test_the_first_results_tell_their_shots_in_the_checkpoint(tmp_path):
    (read,) = read_results([EARLY])
    assert "shots" not in read.content and read.modern["shots"] == {"train": 1, "test": 1}
    content = json.loads(EARLY.read_text())
    content["checkpoint"]["learned"] = False
    assert one_spelling(content)["shots"] == {"train": None, "test": 1}
    del content["checkpoint"]["learned"]
    (tmp_path / "damaged.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="shots: Field required"):
        read_results([tmp_path / "damaged.json"])


def test_both_spellings_become_one():
    old, new = (one_spelling(x) for x in (OLD, NEW))
    assert old["checkpoint"] == {**new["checkpoint"], "backbone": {"type": "resnet50", "stem": "deep"}}
    assert old["config"]["backbone"] == {
        "type": "resnet50", "stem": "auto", "weights": "random", "stride": 8
    }  # fmt: skip
    assert one_spelling(old) == old and one_spelling(new) == new == NEW
    network = {
        "network": "base", "backbone.type": "resnet50", "backbone.stem": "deep", "backbone.stride": 8,
        "neck.type": "ppm", "neck.channels": 256, "neck.align": True, "neck.stride": 8, "neck.gate": "conv",
        "neck.bins": (1, 2, 3, 6), "neck.classifier_bias": False,
    }  # fmt: skip
    assert network_of(old) == network_of(new) == network


def test_one_network_is_one_row_in_both_spellings():
    (row,) = make_rows([result(OLD), result(NEW, fold=1)])
    assert row.label == "cwt" and row.miou is not None


@pytest.mark.parametrize(
    ("other", "label"),
    [
        (changed(OLD, "backbone", layers=18), "backbone.type=resnet18"),
        (changed(NEW, "backbone", type="timm:vit_tiny"), "backbone.type=timm:vit_tiny"),
        (changed(OLD, "backbone", stride=32), "backbone.stride=32"),
        (changed(OLD, "backbone", stem="plain"), "backbone.stem=plain"),
        (changed(OLD, "backbone", vit="auto"), "backbone.vit_size=224"),
        (changed(OLD, "backbone", stage1=False), "network=weights"),
        (changed(OLD, "backbone", base="some/base.pt"), "network=file"),
        ({**NEW, "config": {**NEW["config"], "network": "weights"}}, "network=weights"),
        ({**NEW, "config": {**NEW["config"], "network": "some/base.pt"}}, "network=file"),
        (changed(OLD, "neck", options={"x": 1}), "neck.x=1"),
        (changed(NEW, "neck", type="sfnet"), "neck.type=sfnet"),
    ],
)
def test_other_networks_are_other_rows(other, label):
    for same in (OLD, NEW):
        labels = {row.label for row in make_rows([result(same), result(other)])}
        assert f"cwt {label}" in labels and len(labels) == 2


def test_options_that_are_not_said_are_at_their_defaults():
    said = changed(OLD, "neck", channels=512)
    silent = {"backbone": {"type": "resnet50", "weights": "random"}, "neck": {"type": "ppm"}}
    rows = make_rows([result(said), result({"config": {"network": "base", **silent}}, fold=1)])
    labels = {row.label for row in rows}
    assert not any("channels" in label or "stride" in label for label in labels)


def test_options_are_compared_among_those_of_one_backbone():
    vit = changed(NEW, "backbone", type="vit", stem="none", depth=3)
    assert {row.label for row in make_rows([result(OLD), result(vit)])} == {
        "cwt backbone.type=resnet50", "cwt backbone.type=vit"
    }  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        {"config": {}, "frozen_sha256": "external", "checkpoint": {"external": True}},
        {"config": {"network": "external"}},
    ],
)
def test_external_models_have_no_network(told):
    assert network_of(result(told, head="mine").modern) == {"network": "external"}
    rows = make_rows([result(told, head="mine"), result(NEW)])
    assert [row.label for row in rows] == ["cwt", "mine"]


def test_options_that_heads_no_longer_have_are_left_out():
    old = {**OLD, "head": {"type": "asgnet", "tokens": "none"}}
    assert one_spelling(old)["head"] == {"type": "asgnet"}
    other = {**OLD, "head": {"type": "asgnet", "tokens": "tokens"}}
    assert one_spelling(other)["head"] == other["head"]


def test_damaged_sections_are_left_for_the_reader_to_refuse():
    for junk in (None, 3, [], "x"):
        assert one_spelling({"config": junk, "checkpoint": junk, "head": junk}) == {
            "config": junk, "checkpoint": junk, "head": junk
        }  # fmt: skip
        sections = {"backbone": {"type": junk}, "neck": {"options": junk}, "head": junk}
        content = one_spelling({"config": sections, "checkpoint": sections})
        assert isinstance(network_of(content), dict)
