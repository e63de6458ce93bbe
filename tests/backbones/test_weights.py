"""Weights: found by name, loaded strictly, refused with a reason."""

import pickle

import pytest
import torch
from torchvision.models import resnet18

from fss.backbones import make_backbone
from fss.backbones.resnet import ResNet
from fss.backbones.weights import find_weights, has_deep_stem, load_strict, read_state, read_weights, rename
from fss.errors import UserError
from fss.ops import normalise


def test_torchvisions_own_file_loads_and_computes_the_same_stem(tmp_path):
    theirs = resnet18().eval()
    path = tmp_path / "resnet18-f37072fd.pth"
    torch.save(theirs.state_dict(), path)
    ours = make_backbone("resnet18", str(path), {}).eval()
    assert not ours.deep_stem and ours.settled() == {"stem": "plain"}
    images = 255 * torch.rand(1, 3, 33, 33)
    x = normalise(images)
    with torch.no_grad():
        want = theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))))
        assert torch.allclose(ours(images, ("stage2",))["stage2"], want, atol=1e-5)


def test_published_deep_stem_file_loads(tmp_path):
    net = ResNet(18)
    names = {
        "layer0.0": "conv1",
        "layer0.1": "bn1",
        "layer0.3": "conv2",
        "layer0.4": "bn2",
        "layer0.6": "conv3",
    }
    names["layer0.7"] = "bn3"
    state = {}
    for name, value in net.state_dict().items():
        prefix = ".".join(name.split(".")[:2])
        state[f"module.{name.replace(prefix, names.get(prefix, prefix), 1)}"] = value
    state["module.fc.weight"] = torch.zeros(1000, 512)
    torch.save({"state_dict": state}, tmp_path / "resnet18_v2.pth")
    found = find_weights("auto", 18, "auto", tmp_path)
    read = read_weights(found, 18)
    assert has_deep_stem(read)
    load_strict(ResNet(18), read, "file")
    assert all(torch.equal(read[k], v) for k, v in net.state_dict().items())


def test_a_checkpoints_backbone_loads(tmp_path):
    net = ResNet(18, "plain")
    torch.save({"model": {f"backbone.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "best.pt")
    loaded = make_backbone("resnet18", str(tmp_path / "best.pt"), {"stride": 32})
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in net.state_dict().items())
    assert loaded.stride == 32 and loaded.settled() == {"stem": "plain"}


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)resnet50_v2.pth into .*backbone.weights=download.*backbone.weights=random"
    ):
        find_weights("auto", 50, "auto", tmp_path)
    with pytest.raises(UserError, match="no such file"):
        find_weights(str(tmp_path / "x.pth"), 50, "auto")


def test_other_stem_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(resnet18().state_dict(), path)
    with pytest.raises(UserError, match="plain stem"):
        make_backbone("resnet18", str(path), {"stem": "deep"})


def test_every_kind_of_misfit_is_listed():
    state = rename(resnet18().state_dict())
    del state["layer1.0.conv1.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["layer0.0.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(UserError) as error:
        load_strict(ResNet(18, "plain"), state, "file.pth")
    text = str(error.value)
    assert "1 missing: layer1.0.conv1.weight" in text and "1 unexpected: extra.weight" in text
    assert "1 of another shape: layer0.0.weight (64, 3, 3, 3), wanted (64, 3, 7, 7)" in text


class _Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize("kind", ["truncated", "code", "text", "list"])
def test_foreign_files_are_refused_and_nothing_runs(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if kind == "truncated":
        torch.save(resnet18().state_dict(), path)
        path.write_bytes(path.read_bytes()[:10_000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(_Bomb()))
    elif kind == "text":
        path.write_text("hello")
    else:
        torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state(path)
    assert not (tmp_path / "bomb-went-off").exists()
