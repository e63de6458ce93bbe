"""Backbones from outside the package: found by import path, computed as written, and told what is wrong."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from fss.backbones import make_backbone
from fss.backbones.base import STAGES
from fss.backbones.fold import fold
from fss.errors import UserError
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = "examples.my_backbone.my_backbone:MyBackbone"


@pytest.fixture
def backbone_file(tmp_path, monkeypatch):
    """Write the example, changed, into the working folder; returns its import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))

    def write(old, new):
        text = (ROOT / "examples/my_backbone/my_backbone.py").read_text(encoding="utf-8")
        assert old in text
        module = f"backbone_{abs(hash((old, new)))}"
        (tmp_path / f"{module}.py").write_text(text.replace(old, new))
        return f"{module}:MyBackbone"

    return write


def test_the_example_runs_by_its_yaml(monkeypatch):
    monkeypatch.chdir(ROOT)
    section = yaml.safe_load((ROOT / "examples/my_backbone/my_backbone.yaml").read_text())["backbone"]
    backbone = unsettled(make_backbone(section.pop("type"), section.pop("weights"), section))
    images = 255 * torch.rand(2, 3, 65, 97)
    out = backbone(images, STAGES)
    assert {k: x.shape[1] for k, x in out.items()} == {
        "stage1": 32,
        "stage2": 64,
        "stage3": 128,
        "stage4": 256,
    }
    assert [tuple(x.shape[2:]) for x in out.values()] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    folded = fold(backbone, torch.float32)
    assert max(relative_error(folded(images, STAGES)[k], x) for k, x in out.items()) < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_nothing_deeper_than_asked_is_computed(monkeypatch):
    monkeypatch.chdir(ROOT)
    backbone = make_backbone(EXAMPLE, "random", {"width": 4}).eval()
    del backbone.stages["stage4"], backbone.stages["stage3"]
    assert list(backbone(torch.rand(1, 3, 33, 33), ("stage2",))) == ["stage2"]


def test_a_file_of_its_state_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    backbone, path = make_backbone(EXAMPLE, "random", {"width": 4}), tmp_path / "w.pth"
    torch.save(backbone.state_dict(), path)
    loaded = make_backbone(EXAMPLE, str(path), {"width": 4}).state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(UserError, match=r"w\.pth does not fit this network"):
        make_backbone(EXAMPLE, str(path), {"width": 8})
    assert make_backbone(EXAMPLE, None, {"width": 4}).channels["stage1"] == 4


@pytest.mark.parametrize(("kind", "name"), [("python", "my_backbone.py"), ("yaml", "my_backbone.yaml")])
def test_the_page_shows_the_files_as_they_are(kind, name):
    page = (ROOT / "docs/add-a-backbone.md").read_text(encoding="utf-8")
    blocks = [block.partition("```\n")[0] for block in page.split(f"```{kind}\n")[1:]]
    assert (ROOT / "examples/my_backbone" / name).read_text(encoding="utf-8") in blocks


@pytest.mark.parametrize(
    ("old", "new", "weights", "options", "message"),
    [
        ("width", "width", "random", {"widht": 4}, "takes no 'widht', did you mean width"),
        ("width", "width", "random", {"width": "wide"}, "width='wide': wanted a whole number"),
        ("width", "width", "auto", {}, "weights=auto: MyBackbone comes with none"),
        ("self.strides =", "self.steps =", "random", {}, r"backbone_\d+.*must set self.strides"),
        ("(Backbone)", "(nn.Module)", "random", {}, "is no subclass of fss.backbones.Backbone"),
        ('images, levels=("stage4",)', "images", "random", {}, r"forward\(self, images\) does not fit"),
        ("super().__init__()\n", "pass\n", "random", {}, r"must begin with super\(\).__init__\(\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(backbone_file, old, new, weights, options, message):
    with pytest.raises(UserError, match=message):
        make_backbone(backbone_file(old, new), weights, options)
