"""The script that measures necks: it goes on where it was, refuses other settings, prints what it found."""

import importlib.util
import json
from pathlib import Path

import pytest

from fss.errors import UserError
from tests.make import make_folder

SCRIPT = Path(__file__).parent.parent / "studies/measure_necks.py"
QUICK = (
    "data.size=49", "pretrain.crop=49", "neck.channels=16", "data.workers=0", "data.min_pixels=100",
    "test.episodes=4", "precision=fp32", "head.steps=5", "pretrain.batch=4",
)  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("measure_necks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROUNDS", 1)
    return module


def test_what_is_measured_is_kept_and_tabled(script, tmp_path, monkeypatch):
    plan = script.Plan(tmp_path / "work", 1, 0, str(make_folder(tmp_path / "photos")), QUICK)
    runs = [script.Run("folder", neck, 0) for neck in ("sfnet", "fpn")]
    found = {run: script.measure(plan, run, "random") for run in runs}
    assert [m["steps"] for m in found.values()] == [1, 1]
    assert [p.name for p in (tmp_path / "work/folder/sfnet/seed0").iterdir()] == ["measured.json"]
    monkeypatch.setattr(script, "pretrain", None)  # would fail if called again
    assert {run: script.measure(plan, run, "random") for run in runs} == found
    with pytest.raises(UserError, match="measured with other settings; repeat those"):
        script.measure(plan._replace(settings=[*QUICK, "test.episodes=5"]), runs[0], "random")
    costs = {"folder": script.costs_of(plan, "folder", ["sfnet", "fpn"])}
    lines = list(script.table(plan, found, costs))
    assert lines[0].startswith(
        "**folder (photos)**, fold 0: resnet18, stages of stride 4, 8, 8, 8; 16 channels;"
    )
    row = next(line for line in lines if line.startswith("| sfnet |"))
    assert f"| sfnet | {found[runs[0]]['base']:.1f} | {found[runs[0]]['boundary']:.1f} |" in row
    gain = found[runs[0]]["novel"] - found[runs[1]]["novel"]
    assert any(line.startswith("| sfnet - fpn |") and f" {gain:.1f} |" in line for line in lines)


def test_what_necks_cost_needs_no_training(script, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "n.json"), "--seeds", "0", "--necks", "ppm", "fpn"])
    assert script.main() == 0
    told = json.loads((tmp_path / "n.json").read_text())
    assert told["runs"] == [] and list(told["costs"]["shapes"]) == ["ppm", "fpn"]
    assert told["costs"]["shapes"]["ppm"]["parameters_m"] == 1.443
    assert told["environment"]["torch"] and told["date"]
