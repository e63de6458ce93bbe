"""The examples run: scoring models that know nothing of the framework."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from fss.cli import main as fss_main
from tests.make import make_folder

PATH = Path(__file__).parent.parent / "examples/score_your_model.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("score_your_model", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_models_into_one_table(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "set")
    tiny = ["data.root=set", "data.size=49", "data.workers=0", "data.min_pixels=100"]
    scores = example.main(["folder", *tiny, "--runs", "2", "--episodes", "3", "--shots", "2"])
    files = sorted(p.name for p in Path("results/external").iterdir())
    assert files == ["DeepLabV3_fold0_2shot.json", "all_foreground_fold0_2shot.json"]
    assert [s.content["head"]["type"] for s in scores] == ["all foreground", "DeepLabV3"]
    assert json.loads(Path("results/external", files[0]).read_text())["scores"]["episodes_run"] == 6
    assert fss_main(["report", "results/external"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "| all foreground | external |" in out and "| DeepLabV3 | external |" in out


def test_the_class_that_fits_the_support_is_the_answer(example):
    """A network that knows class 2 as the bright pixels and class 1 as the dark ones."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(10.0))

        def forward(self, images):
            x = images.mean(1) * self.scale
            return {"out": torch.stack([torch.zeros_like(x), -x, x], 1)}

    images = torch.full((2, 3, 8, 8), -1.0)
    images[:, :, :4] = 1.0  # the upper half is bright
    masks = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    masks[..., :4, :] = 1
    episode = example.fss.Episode(images[:1], None, images[None, 1:], masks, torch.tensor([1]))
    model = example.BestClass(Network())
    assert torch.equal(model(episode).argmax(1), masks[:, 0])
    episode.support_masks = 1 - masks
    assert torch.equal(model(episode).argmax(1), 1 - masks[:, 0])
