"""Who a checkpoint is: accounts of 0.1 in today's words, and what differs, named with both values."""

import json

import pytest
import torch

import fss
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity, identify, modern, require

NAMES = ["cat", "dog"]
HEAD = {
    "transformer": True, "steps": 200, "lr": 0.1, "heads": 4, "attention_dropout": 0.1, "dropout": 0.5,
}  # fmt: skip
PPM = {"type": "ppm", "channels": 512, "dropout": 0.1}
OLD = {
    "stage": "few-shot", "train_masks": None, "data": "pascal", "fold": 0, "base_classes": NAMES, "size": 473,
    "layers": 50, "stem": "deep", "neck": PPM, "head": "cwt", "head_options": HEAD, "shots": 1, "seed": 2021,
}  # fmt: skip
SFNET = {"type": "sfnet", "channels": 256, "dropout": 0.1, "align": True, "auxiliary": False}


def config(*settings, head="cwt"):
    return load_config("pascal", head, ["data.size=473", *settings])


def wanted(*settings, head="cwt"):
    return Identity.of_few_shot(config(*settings, head=head), NAMES).account()


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({}, []),
        ({"stem": "plain"}, ["backbone.stem=plain"]),
        ({"layers": 101}, ["backbone.type=resnet101"]),
        ({"neck": None}, ["network=weights"]),
        ({"stride": 32, "neck": SFNET}, ["backbone.stride=32", "neck.type=sfnet"]),
        ({"neck": SFNET | {"stride": 4}}, ["neck.type=sfnet", "neck.stride=4"]),
        ({"neck": SFNET | {"type": "fpn", "align": False}}, ["neck.type=fpn"]),
        ({"novel_in_train": "ignore"}, ["data.novel_in_train=ignore"]),
    ],
)
def test_an_account_of_0_1_is_what_todays_settings_ask_for(change, settings):
    old = OLD | change
    require(old, wanted(*settings), "old.pt")
    who = identify(old, "old.pt")
    asked = Identity.of_few_shot(config(*settings), NAMES)
    require(who.account(), asked.account(), "old.pt")
    assert who.backbone.type == asked.backbone.type and who.head.type == "cwt"
    assert (who.neck is None) == (asked.neck is None)


def test_a_base_network_of_0_1_has_no_stride_of_its_map():
    old = {k: v for k, v in OLD.items() if not k.startswith("head")} | {"stage": "base", "neck": SFNET}
    for stride in (4, 8):
        asked = Identity.of_base(config("neck.type=sfnet", f"neck.stride={stride}"), NAMES)
        require(old, asked.account(), "base.pt")
    with pytest.raises(fss.UserError, match=r"neck is sfnet with auxiliary=False, wanted .*auxiliary=True"):
        asked = Identity.of_base(config("neck.type=sfnet", "neck.auxiliary=true"), NAMES)
        require(old, asked.account(), "base.pt")


def test_an_option_that_came_later_counts_at_its_default():
    older = OLD | {"head_options": {k: v for k, v in HEAD.items() if k != "lr"}}
    require(older, wanted(), "old.pt")
    with pytest.raises(fss.UserError, match=r"head is cwt with lr=0\.1, wanted cwt with lr=0\.2"):
        require(older, wanted("head.lr=0.2"), "old.pt")


def test_options_that_0_2_dropped_are_dropped():
    who = identify(OLD | {"head": "asgnet", "head_options": {"tokens": "none", "width": 8}}, "old.pt")
    assert who.head.options == {"width": 8}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["data.fold=1"], "fold is 0, wanted 1"),
        (["data.size=57"], "size is 473, wanted 57"),
        (["backbone.type=resnet101"], "backbone is resnet50, wanted resnet101"),
        (["backbone.stem=plain"], "backbone is resnet50 with stem=deep, wanted resnet50 with stem=plain"),
        (["neck.channels=64"], "neck is ppm with channels=512, wanted ppm with channels=64"),
        (["neck.type=fpn"], "neck is ppm, wanted fpn"),
        (["network=weights"], "neck is ppm, wanted None"),
        (["head.heads=2"], "head is cwt with heads=4, wanted cwt with heads=2"),
        (["data.novel_in_train=ignore"], "novel_in_train is background, wanted ignore"),
        (["data.train_masks=pseudo"], "train_masks is None, wanted pseudo"),
    ],
)
def test_what_differs_is_named_with_both_values(settings, says):
    with pytest.raises(fss.UserError) as error:
        require(OLD, wanted(*settings), "old.pt")
    (line,) = str(error.value).splitlines()
    assert line.startswith("old.pt is another kind of checkpoint: ") and says in line


def test_all_that_differs_stands_in_one_line():
    with pytest.raises(fss.UserError) as error:
        require(OLD | {"base_classes": ["cow"]}, wanted("data.fold=1", "head.steps=5"), "old.pt")
    (line,) = str(error.value).splitlines()
    for part in ("base_classes is ['cow'], wanted ['cat', 'dog']", "fold is 0", "with steps=200, wanted"):
        assert part in line


def test_an_account_of_today_stays_as_it_is():
    for settings in ([], ["neck.type=sfnet_gated"], ["network=weights"]):
        account = wanted(*settings)
        assert modern(account) == account == json.loads(json.dumps(account))


def test_a_neck_from_outside_keeps_what_0_1_would_have_dropped():
    mine = {"type": "mine.necks:Mine", "stride": 8, "align": True}
    assert modern({"neck": mine})["neck"] == mine
    whole = mine | {"channels": 64, "auxiliary": False, "gate": "conv", "options": {"depth": 2}}
    assert modern({"neck": whole})["neck"] == {"type": "mine.necks:Mine", "channels": 64, "depth": 2}


def test_an_account_without_its_parts_is_refused():
    for about in ({"stage": "base"}, OLD | {"stage": "backbone"}, OLD | {"neck": "ppm"}):
        with pytest.raises(fss.UserError, match=r"old\.pt does not say what it holds"):
            identify(about, "old.pt")


def test_the_account_beside_a_checkpoint_needs_no_torch(tmp_path):
    state = {"facts": {}, "settings": {}, "optimizer": {}, "step": 0, "spent": 0.0, "best": 0.0}
    about = wanted() | {"shots": 1}
    checkpoint.save(tmp_path / "best.pt", about, torch.nn.Linear(1, 1), validated=0, **state)
    assert json.loads((tmp_path / "best.json").read_text()) == about
    assert checkpoint.read(tmp_path / "best.pt")["about"] == about
