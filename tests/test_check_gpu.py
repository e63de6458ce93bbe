"""The check of a GPU works where there is none, and tells how far answers are from a stored network's."""

import sys
from pathlib import Path

import pytest
import torch

from tests.test_scripts import ROOT, sh

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))
import check_gpu
from check_gpu import CPU, Machine

SMALL = Machine(CPU, half=False, runs=1, size=65, rate=1e12)


@pytest.mark.parametrize("head", ["votes_decoder", "insid3"])
def test_a_head_has_all_its_numbers_and_answers_as_its_stored_network(head):
    row = check_gpu.head_row(head, SMALL)
    assert row["difference"] < 1e-3
    assert {"test_gib", "episodes", "cached_episodes", "images", "share"} <= row.keys()
    assert ("steps" in row and "step_gib" in row) == (head != "insid3")
    assert 0 < row["share"] < 10


def test_a_backbone_is_compared_on_all_its_levels(monkeypatch):
    assert check_gpu.backbone_row("resnet18", SMALL)["difference"] < 1e-3
    stored = check_gpu.reference

    def faulty(model):
        model = stored(model)
        model.backbone.layer4[0].conv1.weight.data *= 1.5
        return model

    monkeypatch.setattr(check_gpu, "reference", faulty)
    assert check_gpu.backbone_row("resnet18", SMALL)["difference"] > 1e-2


def test_flops_are_those_of_the_products():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert check_gpu.flops(lambda: a @ b) == 2 * 3 * 5 * 7


def test_the_table_has_a_row_each():
    rows = {"CWT": {"difference": 1e-6, "test_gib": 0.5, "images": 8.0, "share": 0.1}}
    about = {"device": "a card", "torch": "2"}
    lines = check_gpu.table(
        {"environment": about, "numbers": "bfloat16", "rate": 3e14, "rows": rows}
    ).splitlines()
    assert lines[0] == "a card, PyTorch 2, frozen networks in bfloat16; convolutions at 300 TFLOP/s"
    assert lines[-1] == "| CWT | 1e-06 | 0.5 |  |  |  |  | 8 | 10% |"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_what_it_needs():
    run = sh(ROOT / "scripts/gpu_check.sh")
    assert run.returncode == 2 and "--dry-run runs it on the CPU" in run.stderr
    run = sh(ROOT / "scripts/gpu_check.sh", "--dry")
    assert run.returncode == 2 and "[GPU] [--dry-run]" in run.stderr
