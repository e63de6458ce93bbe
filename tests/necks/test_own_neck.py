"""Necks from outside the package: found by import path, trained, loaded again, and told what is wrong."""

from pathlib import Path

import pytest
import torch

import fss
from fss.backbones.fold import fold
from fss.cli import main
from fss.necks import make_neck
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error
from tests.make import TINY, make_folder

ROOT = Path(__file__).parent.parent.parent
EXAMPLE, RECIPE = "examples.my_neck.my_neck:MyNeck", "examples/my_neck/my_neck.yaml"
INPUTS = {"stage1": 8, "stage2": 12, "stage3": 16, "stage4": 24}
GOOD = """
from fss.necks import Decoded, Neck

class Mine(Neck):
    def __init__(self, inputs, channels: int = 4, gain: float = 1.0):
        super().__init__(inputs, channels)
        self.gain = gain

    def decode(self, features):
        return Decoded(features["stage4"][:, : self.channels] * self.gain, {}, {})
"""


@pytest.fixture
def neck_file(tmp_path, monkeypatch):
    """Write a neck's file of a new name into the working folder; returns its import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))

    def write(text, name="Mine"):
        module = f"neck_{abs(hash(text))}"
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}:{name}"

    return write


def make(name, **given):
    return make_neck(name, INPUTS, given)


def test_example_trains_tests_and_loads_by_its_yaml(tmp_path, monkeypatch, capsys):
    """As docs/add-a-neck.md has it, from the checkout; nothing is installed for it."""
    monkeypatch.chdir(ROOT)
    root, output = make_folder(tmp_path / "set"), tmp_path / "results"
    tiny = [s for s in TINY if not s.startswith(("head.", "test.runs"))]
    run = ["--data", "folder", "--config", RECIPE, f"data.root={root}", f"output={output}"]
    assert main(["train", *run, *tiny, "test.runs=1", "head.steps=5"]) == 0
    (folder,) = (output / "folder/fold0").glob("cwt*")
    assert "_MyNeck_layers=3_" in folder.name
    model = fss.load_model(folder / "best.pt")
    assert model.extract(255 * torch.rand(1, 3, 49, 49))["neck"].shape == (1, 16, 7, 7)
    assert len(model.neck.convolutions) == 9
    other = ["neck.layers=1", "head.steps=5"]
    assert main(["test", *run, *tiny, *other, "--checkpoint", str(folder / "best.pt")]) == 2
    assert "another kind of checkpoint: neck is" in capsys.readouterr().err


def test_example_is_computed_as_it_is_written():
    neck = unsettled(make(EXAMPLE, channels=16))
    x = {stage: torch.randn(2, c, 13, 9) for stage, c in INPUTS.items()}
    with torch.no_grad():
        assert relative_error(fold(neck, torch.float32)(x), neck(x)) < 1e-5


@pytest.mark.parametrize(("kind", "name"), [("python", "my_neck.py"), ("yaml", "my_neck.yaml")])
def test_the_page_shows_the_files_as_they_are(kind, name):
    page = (ROOT / "docs/add-a-neck.md").read_text(encoding="utf-8")
    block = page.partition(f"```{kind}\n")[2].partition("```\n")[0]
    assert block == (ROOT / "examples/my_neck" / name).read_text(encoding="utf-8")


def test_settings_reach_a_file_in_the_working_folder(neck_file):
    neck, x = make(neck_file(GOOD), channels=8, gain=3.0), torch.randn(1, 24, 4, 4)
    assert torch.equal(neck({"stage4": x}), 3 * x[:, :8])


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (GOOD.replace("def decode", "def decodes"), {}, "has no method decode"),
        (GOOD.replace("super().__init__(inputs, channels)", "pass"), {}, "must begin with super"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(neck_file, text, given, message):
    with pytest.raises(fss.UserError, match=message):
        make(neck_file(text), **given)


def test_a_map_of_other_channels_is_told(neck_file):
    neck = make(neck_file(GOOD), channels=30)
    with pytest.raises(fss.UserError, match=r"must be \(B,30,h,w\), got \(1, 24, 4, 4\)"):
        neck({"stage4": torch.randn(1, 24, 4, 4)})
