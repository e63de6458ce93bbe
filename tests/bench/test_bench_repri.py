"""RePRI equals its plain rendering by autograd, from images and on given features, and is timed."""

import json

import pytest
import torch

from fss.bench import plain_repri
from fss.bench.cases import METHODS, Setting, episode, repri_updates
from fss.cli import main
from fss.heads.repri import RePRI
from fss.ops import resize
from tests.bench.test_bench import SIZE, settled
from tests.bench.test_bench import setting as setting  # a fixture
from tests.conftest import relative_error


@pytest.mark.parametrize("shots", [1, 3])
def test_logits_equal_the_plain_ones_from_images_on(setting, shots):
    model = settled(setting, "repri")
    e = episode(setting, "repri", 1, shots)
    with torch.no_grad():
        out = model.output(e, [0])
        wanted, sides = METHODS["repri"].plain(model, e, False)
    assert relative_error(resize(out.logits, (SIZE, SIZE)), wanted) < 1e-4 and not sides


@pytest.mark.parametrize("name", ["1shot", "5shot"])
def test_the_plain_updates_are_the_authors(fixture_numbers, name):
    data = {k: torch.tensor(v) for k, v in fixture_numbers(f"repri_inner_{name}").items()}
    for steps in (9, 49):
        head = RePRI({"neck": 64}, steps=steps)
        for b in range(len(data["query_mask"])):
            vector, threshold = plain_repri.updates(
                head, data["support_features"][b], data["query_features"][b : b + 1],
                data["support_masks"][b], data["query_mask"][b : b + 1],
            )  # fmt: skip
            assert relative_error(vector, data[f"prototype_after_{steps}"][b]) < 1e-5
            assert float(threshold) == pytest.approx(float(data[f"bias_after_{steps}"][b]), rel=1e-5)


def test_both_ways_of_the_updates_case_do_the_same_episode():
    pair = repri_updates(Setting(97, "resnet50", torch.device("cpu"), False), 2)
    assert pair.ours() == pytest.approx(pair.plain(), rel=1e-3)


def test_the_command_times_it(capsys):
    only = "repri_updates_1shot,repri_cached_1shot"
    small = ["bench", "--size", "65", "--runs", "1", "--gpus", "cpu", "--precision", "fp32", "--json"]
    assert main([*small, "--only", only]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line).keys() == set(only.split(","))
