"""The schema: what is merged, and how mistakes are answered."""

import pytest
import yaml

from fss.config import Config
from fss.errors import UserError
from fss.recipes import load_config, validate
from fss.runs.identity import whole
from fss.runs.models import head_on_empty_network


def test_later_differences_win():
    config = load_config("shapes", "cwt", ["test.episodes=7", "data.root=/a b/c", "head.steps=20"])
    assert (config.test.episodes, str(config.data.root), config.data.size) == (7, "/a b/c", 97)
    assert config.head.type == "cwt" and config.head.options["steps"] == 20
    assert config.train.nesterov and config.train.momentum == 0.9  # defaults of the schema


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sise=97", "unknown key data.sise, did you mean size?"),
        ("lr=0.1", "unknown key lr, did you mean pretrain.lr or pseudo.lr or train.lr?"),
        ("dta.size=97", "unknown key dta, did you mean data?"),
        ("data.fold=4", r"fold 4 does not exist; allowed: 0..3"),
        ("test.runs=0", "test.runs: allowed: 1 or more"),
        ("train.augment=flips", "set train.augment=none"),
        ("data=5", "data=5: data must be a section"),
        ("head=cwt", "head=cwt: head must be a section"),
        ("seed=99999999999", "seed: .*less than"),
        ("train.epochs=.inf", "finite number"),
        ("train.momentum=0", "nesterov needs a momentum"),
        ("pretrain.scale=[2,1]", "0 < low <= high"),
        ("train.scale=[0,1]", r"scale \[0.0, 1.0\] must be \[low, high\]"),
        ("data.resize=warp", "pad', 'squash' or 'stretch"),
        ("seed=2001-99-99", "seed: wanted a whole number"),
        ("test.episodes", "'test.episodes' is not key=value"),
        ("train.seconds=null", "neither epochs nor seconds"),
    ],
)
def test_mistakes_name_key_and_allowed_values(override, message):
    with pytest.raises(UserError, match=message):
        load_config("shapes", "cwt", [override])


def test_unknown_recipes_list_those_that_exist():
    with pytest.raises(UserError, match="unknown data 'pascall', did you mean pascal"):
        load_config("pascall", "cwt")
    with pytest.raises(UserError, match="there are: asgnet, bam, cwt, "):
        load_config("shapes", "nothing-like-it")


def test_broken_yaml_is_named(tmp_path):
    for text in ("data: [", "just words"):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=r"mine\.yaml"):
            load_config(str(path), "cwt")


def test_resolved_copy_comes_back_equal(tmp_path):
    config = load_config("pascal", "cwt", ["test.shots=5"])
    assert validate(yaml.safe_load(config.to_yaml())) == config
    assert isinstance(config, Config)


def test_exponents_without_a_point_are_numbers():
    assert load_config("shapes", "cwt", ["head.lr=1e-1", "train.lr=2e-3"]).head.options["lr"] == 0.1


def test_empty_section_changes_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data:\ntest:\n  runs: 3\n")
    config = load_config("shapes", "cwt", extra=[str(path)])
    assert config.data.size == 97 and config.test.runs == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.layers=20", "unknown backbone 'resnet20', did you mean resnet50"),
        ("backbone.stride=16", "backbone 'resnet50': stride=16: allowed: 8 or 32"),
        ("backbone.stem=depp", "backbone 'resnet50': stem='depp': allowed: 'auto', 'deep' or 'plain'"),
        ("neck.type=pmp", "unknown neck 'pmp', did you mean ppm"),
        ("neck.align=false", "neck 'ppm' takes no 'align'; allowed: channels, bins, dropout"),
        ("head.stpes=20", "head 'cwt' takes no 'stpes', did you mean steps"),
        ("data.size=5", "data.size: allowed: 17 or more"),
    ],
)
def test_mistakes_in_parts_are_answered_before_anything_is_trained(override, message):
    with pytest.raises(UserError, match=message):
        head_on_empty_network(load_config("shapes", "cwt", [override]))


def test_a_neck_of_another_type_brings_its_own_defaults():
    def neck(*settings):
        return whole("neck", load_config("pascal", "cwt", [f"neck.{s}" for s in settings]).neck).model_dump()

    assert {"type": "ppm", "channels": 512, "dropout": 0.1}.items() <= neck().items()
    assert (neck("type=alignseg")["channels"], neck("type=alignseg")["auxiliary"]) == (256, True)
    assert neck("type=sfnet", "channels=64")["channels"] == 64 and not neck("type=sfnet")["auxiliary"]
    assert neck("type=sfnet", "align=false") == neck("type=fpn") == neck("type=fpn", "align=false")


def test_folders_are_named_after_options_beside_the_recipes():
    assert load_config("shapes", "cwt").variant == ""
    assert (
        load_config("shapes", "cwt", ["head.transformer=false", "head.balanced=false"]).variant
        == "transformer=False"
    )


def test_a_recipes_options_hold_for_networks_of_the_same_kind():
    options = lambda *said: load_config("pascal", "hsnet", said).backbone.options  # noqa: E731
    assert options()["stride"] == options("backbone.type=resnet101")["stride"] == 32
    assert "stride" not in options("backbone.type=efficientnet_lite0")
    assert options("backbone.type=resnet18", "backbone.stride=8")["stride"] == 8
