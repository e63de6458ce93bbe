"""Networks from their files: what a checkpoint keeps of them, and what is refused."""

import pytest
import torch

import fss
from fss.backbones.resnet import ResNet18
from fss.cli import main
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.models import head_on_empty_network, learns
from tests.make import TINY, make_folder

QUICK = [s for s in TINY if not s.startswith(("head.", "backbone.weights"))]
EMBED = ["head.embed=4", "head.level=stage1"]


def save_weights(path, seed):
    torch.manual_seed(seed)
    torch.save(ResNet18().state_dict(), path)


def run(place, verb, *settings):
    where = [f"data.root={place / 'set'}", f"output={place / 'results'}", "network=weights"]
    return main([verb, "--data", "folder", "--head", "prototype", *where, *QUICK, *EMBED, *settings])


@pytest.fixture
def place(tmp_path):
    make_folder(tmp_path / "set")
    save_weights(tmp_path / "weights.pth", 1)
    return tmp_path


def trained(place, *settings):
    assert run(place, "train", *settings) == 0
    (best,) = place.glob("results/folder/fold0/prototype*_1shot/best.pt")
    return best, checkpoint.read(best)


def logits(path):
    image = torch.arange(3 * 33 * 33).view(1, 3, 33, 33) % 256
    mask = torch.zeros(1, 1, 33, 33, dtype=torch.int64)
    mask[..., 8:20, 8:20] = 1
    with torch.no_grad():
        return fss.load_model(path)(image, image[:, None].flip(3), mask)


def test_on_weights_from_a_file_the_head_alone_is_kept(place, capsys):
    weights = place / "weights.pth"
    given = f"backbone.weights={weights}"
    best, content = trained(place, given)
    assert {name.partition(".")[0] for name in content["model"]} == {"head"}
    assert content["about"]["neck"] is None and content["facts"]["base"]["backbone_sha256"]
    assert best.stat().st_size < weights.stat().st_size / 10
    before = logits(best)
    model = fss.load_model(best)
    model.to(torch.float64)
    assert not model.keeps_network and torch.equal(logits(best), before)
    assert torch.equal(model.backbone.layer0[0].weight.float(), torch.load(weights)["layer0.0.weight"])
    assert run(place, "test", given) == 0  # and training goes on from it, or finds it done
    assert run(place, "train", given) == 0
    capsys.readouterr()

    save_weights(weights, 2)
    with pytest.raises(
        fss.UserError, match=r"was trained on other weights than backbone.weights=.*weights.pth"
    ):
        fss.load_model(best)
    assert run(place, "test", given) == 2
    error = capsys.readouterr().err
    assert content["facts"]["base"]["backbone_sha256"][:12] in error and "put those back" in error
    weights.unlink()
    with pytest.raises(fss.UserError, match=r"holds its head alone, .* missing: .*weights.pth: no such file"):
        fss.load_model(best)
    save_weights(weights, 1)
    assert torch.equal(logits(best), before)


def test_random_weights_are_kept_whole(place):
    best, content = trained(place, "backbone.weights=random")
    assert {name.partition(".")[0] for name in content["model"]} == {"backbone", "head"}
    assert fss.load_model(best).keeps_network
    before = logits(best)
    torch.manual_seed(99)
    assert torch.equal(logits(best), before)


def test_what_a_head_is_like_is_known_without_memory():
    """A network whose weights are nowhere, of any size: made without numbers, for what its class tells."""
    head = head_on_empty_network(load_config("pascal", "asgnet", ["backbone.weights=nowhere.pth"]))
    assert head.learns and all(p.device.type == "meta" for p in head.parameters())
    assert not learns(load_config("pascal", "prototype"))
    with pytest.raises(fss.UserError, match=r"cwt.*it needs neck"):
        head_on_empty_network(load_config("pascal", "cwt", ["network=weights"]))
