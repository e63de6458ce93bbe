"""Necks through both trainings: what is logged, named, refused, drawn and loaded again."""

import json

import pytest
import torch

import fss
from fss.cli import main
from fss.data.files import read_image
from fss.runs import checkpoint
from tests.make import TINY, make_folder

QUICK = [*(s for s in TINY if not s.startswith("head.")), "test.runs=1", "test.episodes=3"]
SMALL = ["head.width=8", "head.sizes=[7,4]", "head.cells=2", "head.features=neck", "network=base"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder set, and where runs go."""
    place = tmp_path_factory.mktemp("necks")
    make_folder(place / "set")
    return place


def run(place, verb, head, *settings):
    where = [f"data.root={place / 'set'}", f"output={place / 'results'}"]
    return main([verb, "--data", "folder", "--head", head, *where, *QUICK, *settings])


def folders(place, pattern):
    return sorted((place / "results/folder/fold0").glob(pattern))


def test_alignseg_from_base_training_to_pictures(place, capsys):
    wanted = ["neck.type=alignseg", "head.steps=5"]
    assert run(place, "train", "cwt", *wanted) == 0
    assert "within 3 pixels of boundaries" in capsys.readouterr().out
    (base,) = folders(place, "base_resnet18_random_alignseg")
    first = json.loads((base / "log.jsonl").read_text().splitlines()[0])
    assert first["total"] == pytest.approx(first["base"] + first["auxiliary_stage3"])
    content = checkpoint.read(base / "best.pt")
    assert 0 <= content["facts"]["base_boundary_miou"] <= 100
    assert any(k.startswith("sides.auxiliary_stage3.") for k in content["model"])
    (home,) = folders(place, "cwt*alignseg_1shot")
    content = checkpoint.read(home / "best.pt")
    assert not any(k.startswith("sides.") for k in content["model"])
    model = fss.load_model(home / "best.pt")
    assert model.extract(torch.randn(1, 3, 49, 49))["neck"].shape == (1, 16, 7, 7)
    assert run(place, "test", "cwt", *wanted, "--explain") == 0
    (path, *_) = sorted(home.glob("test_*/visualize/explain_run0_*.jpg"))
    assert read_image(path).shape[0] > 2 * 200  # two of the head, nine of the neck, in rows of six


def test_strides_share_base_training_and_not_training_on_episodes(place, capsys):
    wanted = ["neck.type=sfnet", "backbone.stride=32"]
    assert run(place, "test", "prototype", "head.level=neck", "network=base", *wanted) == 2
    assert "run `fss pretrain`" in capsys.readouterr().err
    assert run(place, "pretrain", "cwt", *wanted) == 0
    assert run(place, "train", "cwt", "head.steps=5", *wanted, "neck.stride=4") == 0
    (base,), (home,) = folders(place, "base_*sfnet"), folders(place, "cwt*sfnet*")
    assert base.name == "base_resnet18_random_stride32_sfnet"
    assert home.name == "cwt,steps=5_resnet18_random_stride32_sfnet_cells4_1shot"
    about = checkpoint.read(home / "best.pt")["about"]
    assert about["backbone"]["stride"] == 32 and about["neck"]["stride"] == 4
    features = fss.load_model(home / "best.pt").extract(torch.randn(1, 3, 49, 49))
    assert features["neck"].shape == (1, 16, 13, 13)
    capsys.readouterr()
    assert run(place, "test", "cwt", *wanted, "neck.stride=4", "head.steps=5", "neck.auxiliary=true") == 2
    assert "sfnet_auxiliary=True_cells4" in capsys.readouterr().err
    assert run(place, "test", "cwt", *wanted, "--checkpoint", str(home / "best.pt"), "head.steps=5") == 2
    assert "neck is sfnet with stride=4, wanted sfnet with stride=8" in capsys.readouterr().err
    given = [f"network={base / 'best.pt'}", "head.steps=5", "neck.type=sfnet"]
    assert run(place, "train", "cwt", *given) == 2
    assert "backbone is resnet18 with stride=32, wanted resnet18 with stride=8" in capsys.readouterr().err


def test_asgnet_on_the_neck(place):
    assert run(place, "train", "asgnet", *SMALL, "neck.type=fpn") == 0
    (home,) = folders(place, "asgnet*fpn_1shot")
    assert fss.load_model(home / "best.pt").head.down_conv[0].in_channels == 16
    assert run(place, "train", "asgnet", *SMALL, "neck.type=fpn", "neck.stride=4") == 0  # finer maps too
    (home,) = folders(place, "asgnet*fpn_cells4_1shot")
    assert fss.load_model(home / "best.pt").extract(torch.zeros(1, 3, 49, 49))["neck"].shape[-2:] == (13, 13)


def test_a_head_without_explanations_may_show_its_neck(place, monkeypatch):
    wanted = ["neck.type=sfnet_gated", "head.level=neck", "network=base"]
    assert run(place, "pretrain", "prototype", *wanted) == 0
    monkeypatch.delattr("fss.heads.prototype.Prototype.explain")
    assert run(place, "test", "prototype", *wanted, "--explain") == 0
    (home,) = folders(place, "prototype*gated*")
    assert len(list(home.glob("test_*/visualize/explain_*.jpg"))) == 3


def test_checkpoints_of_before_are_good_still(place, capsys):
    """Written by 0.1: in its words, and without the options of today, which stand at their defaults."""
    wanted = [*SMALL[:3], "network=base", "tag=old"]
    assert run(place, "train", "asgnet", *wanted) == 0
    (base,), (home,) = folders(place, "base_resnet18_random"), folders(place, "asgnet*_old")
    for path in (base / "best.pt", home / "best.pt", home / "last.pt"):
        content = checkpoint.read(path)
        content["about"] = as_0_1_wrote_it(content["about"])
        content["facts"].pop("base_boundary_miou", None)
        torch.save(content, path)
        path.with_suffix(".json").unlink()
    capsys.readouterr()
    assert run(place, "train", "asgnet", *wanted, "test.episodes=2") == 0
    assert "base training: base-class mIoU" in capsys.readouterr().out
    assert run(place, "test", "asgnet", *wanted, "test.episodes=2") == 0
    assert fss.load_model(home / "best.pt").told["head"]["type"] == "asgnet"


def as_0_1_wrote_it(about):
    """An account with the backbone's and the head's options apart, as before there were others."""
    out = dict(about)
    part, neck = out.pop("backbone"), dict(out["neck"])
    neck.pop("bins")
    out |= {"layers": int(part["type"].removeprefix("resnet")), "stem": part["stem"], "neck": neck}
    if out["head"] is None:
        del out["head"]
    else:
        head = dict(out["head"])
        out |= {"head": head.pop("type"), "head_options": {k: v for k, v in head.items() if k != "features"}}
    del out["novel_in_train"]
    return out
