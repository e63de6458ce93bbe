"""Settings, checkpoints' accounts and result files of version 0.1, as they were written then."""

import json
from pathlib import Path

import pytest

from fss.cli import main
from fss.config import Config
from fss.errors import UserError
from fss.recipes import load_config, validate
from fss.runs.identity import modern as modern_about
from fss.runs.models import head_on_empty_network
from fss.spelling import backbone_name, modern
from fss.spelling import neck as modern_neck

RESULTS = sorted((Path(__file__).parent.parent / "docs/results").glob("*.json"))
OF_0_1 = [path for path in RESULTS if "layers" in json.loads(path.read_text())["config"]["backbone"]]
WHOLE_NECK = {  # 0.1 wrote every setting of every neck
    "type": "ppm", "channels": 512, "dropout": 0.1, "align": True, "stride": 8, "auxiliary": False,
    "gate": "conv", "options": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("backbone.layers=18", "backbone.type=resnet18"),
        ("backbone.layers=101", "backbone.type=resnet101"),
        ("backbone.stage1=true", "network=base"),
        ("backbone.stage1=false", "network=weights"),
        ("backbone.base=some/base.pt", "network=some/base.pt"),
        ("neck.options.dropout=0.3", "neck.dropout=0.3"),
        ("pseudo.layers=50", "pseudo.backbone=resnet50"),
        ("pseudo.local_layers=18", "pseudo.local_backbone=resnet18"),
        ("pseudo.layers=null", "pseudo.backbone=null"),
    ],
)
@pytest.mark.parametrize("head", ["cwt", "asgnet"])
def test_a_setting_of_0_1_means_what_it_meant(old, new, head):
    config = load_config("shapes", head, [old])
    assert config == load_config("shapes", head, [new])
    assert config != load_config("shapes", head) or new in ("network=base", "pseudo.backbone=null")


@pytest.mark.parametrize("head", ["cwt", "asgnet"])
def test_recipes_in_yaml_too(tmp_path, head):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(
        "backbone: {layers: 18, stage1: true, vit: none, vit_size: 224}\n"
        "neck: {type: sfnet, align: false, options: {channels: 32}}\npseudo: {layers: 18}\n"
    )
    new.write_text(
        "backbone: {type: resnet18}\nnetwork: base\nneck: {type: fpn, channels: 32}\n"
        "pseudo: {backbone: resnet18}\n"
    )
    configs = [load_config("shapes", head, extra=[str(path)]) for path in (old, new)]
    assert configs[0] == configs[1] and head_on_empty_network(configs[0])


def test_a_base_network_that_is_named_wins_over_stage1():
    for order in (["backbone.stage1=false", "backbone.base=a.pt"], ["backbone.base=a.pt"]):
        assert load_config("shapes", "asgnet", order).network == "a.pt"
    assert modern({"backbone": {"stage1": False, "base": "a.pt"}}) == {"backbone": {}, "network": "a.pt"}
    assert modern({"backbone": {"stage1": True, "base": None}}) == {"backbone": {}, "network": "base"}


@pytest.mark.parametrize("layers", ["50", "101", "18", "resnet34", "efficientnet_lite0"])
def test_layers_are_a_backbones_name(layers):
    assert backbone_name(layers) == (f"resnet{layers}" if layers.isdigit() else layers)


def test_layers_on_the_command_line(tmp_path, capsys):
    assert main(["train", "--layers", "20", f"output={tmp_path}"]) == 2
    assert "unknown backbone 'resnet20', did you mean resnet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (WHOLE_NECK, {"type": "ppm", "channels": 512, "dropout": 0.1}),
        (
            WHOLE_NECK | {"type": "sfnet", "channels": 256, "stride": 4},
            {
                "type": "sfnet",
                "channels": 256,
                "dropout": 0.1,
                "align": True,
                "stride": 4,
                "auxiliary": False,
            },
        ),
        (
            WHOLE_NECK | {"type": "sfnet", "align": False},
            {"type": "fpn", "channels": 512, "dropout": 0.1, "stride": 8, "auxiliary": False},
        ),
        (
            WHOLE_NECK | {"type": "sfnet_gated", "gate": "pooled"},
            {
                "type": "sfnet_gated",
                "channels": 512,
                "dropout": 0.1,
                "align": True,
                "stride": 8,
                "gate": "pooled",
            },
        ),
        (
            WHOLE_NECK | {"type": "a.b:C", "options": {"layers": 3}},
            {"type": "a.b:C", "channels": 512, "layers": 3},
        ),
        ({"type": "ppm", "align": False}, {"type": "ppm", "align": False}),  # of today: a mistake to be told
    ],
)
def test_a_neck_that_0_1_wrote_whole(old, new):
    got = modern_neck(old)
    assert {k: got[k] for k in new} == new
    assert got == new or ":" in old["type"]


def test_trees_of_today_stay_as_they_are():
    tree = load_config(
        "shapes", "asgnet", ["network=a.pt", "neck.type=sfnet", "neck.align=true"]
    ).model_dump()
    assert (
        modern(tree) == tree and modern({}) == {} and modern({"data": {"size": 3}}) == {"data": {"size": 3}}
    )


@pytest.mark.parametrize("value", [5, "x", None, [1], {"a": 1}, True, 1.5])
@pytest.mark.parametrize(
    "key", ["backbone.type", "backbone.layers", "backbone.stage1", "backbone.base", "backbone.vit",
            "backbone", "neck.type", "neck.options", "neck.align", "neck", "pseudo.layers", "pseudo"]
)  # fmt: skip
def test_odd_values_are_told_or_taken_and_never_crash(key, value):
    tree = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    try:
        assert isinstance(validate(tree), Config)
    except UserError as error:
        assert str(error)


def test_a_vision_transformer_beside_it_is_refused():
    with pytest.raises(UserError, match="backbone 'resnet50' takes no 'vit'"):
        head_on_empty_network(load_config("shapes", "cwt", ["backbone.vit=dino"]))


def test_there_are_result_files_of_0_1():
    assert len(OF_0_1) > 40


@pytest.mark.parametrize("path", sorted(set(RESULTS) - set(OF_0_1)), ids=lambda path: path.stem)
def test_results_of_today_need_no_translation(path):
    written = json.loads(path.read_text())["config"]
    assert validate(written).model_dump(mode="json", exclude_unset=True) == written


@pytest.mark.parametrize("path", OF_0_1, ids=lambda path: path.stem)
def test_configurations_of_published_results_are_taken(path):
    """Each says what it said, and the network and head that it names can be made."""
    old = json.loads(path.read_text())["config"]
    config = validate(old)
    assert config.backbone.type == f"resnet{old['backbone']['layers']}"
    wanted = old["backbone"].get("base") or ("base" if old["backbone"].get("stage1", True) else "weights")
    assert config.network == wanted
    assert config.head.type == old["head"]["type"] and config.test.shots == old["test"]["shots"]
    assert validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    head_on_empty_network(config)


def test_an_account_of_0_1():
    about = {
        "stage": "few-shot", "layers": 50, "stem": "plain", "head": "asgnet",
        "head_options": {"width": 8, "tokens": "none"}, "neck": WHOLE_NECK, "vit_size": 224,
    }  # fmt: skip
    assert modern_about(about) == {
        "stage": "few-shot",
        "backbone": {"type": "resnet50", "stem": "plain", "stride": 8},
        "head": {"type": "asgnet", "width": 8},
        "neck": {"type": "ppm", "channels": 512, "dropout": 0.1},
    }
