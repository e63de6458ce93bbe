"""Backbone and neck: shapes, no deeper than asked, and the authors' features."""

import pytest
import torch

from fss.backbones.resnet import ResNet
from fss.backbones.weights import load_strict
from fss.necks.ppm import PyramidPooling
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


@pytest.mark.parametrize("layers", [18, 34, 50, 101])
@pytest.mark.parametrize("deep", [True, False])
def test_stages_have_stride_4_8_8_8(layers, deep):
    net = ResNet(layers, deep).eval()
    with torch.no_grad():
        out = net(torch.randn(1, 3, 65, 49), ("stage1", "stage2", "stage3", "stage4"))
    assert [tuple(x.shape[2:]) for x in out.values()] == [(17, 13), (9, 7), (9, 7), (9, 7)]
    assert {k: x.shape[1] for k, x in out.items()} == net.channels


@pytest.mark.parametrize("layers", [18, 50])
def test_without_dilation_stages_have_stride_4_8_16_32(layers):
    net, dilated = ResNet(layers, stride=32).eval(), ResNet(layers)
    with torch.no_grad():
        out = net(torch.randn(1, 3, 65, 97), ("stage1", "stage2", "stage3", "stage4"))
    assert [tuple(x.shape[2:]) for x in out.values()] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    net.load_state_dict(dilated.state_dict())  # the same parameters
    with pytest.raises(ValueError, match="stride 16 is not offered; allowed: 8, 32"):
        ResNet(18, stride=16)


def test_nothing_deeper_than_asked_is_computed():
    net = ResNet(18).eval()
    net.layer3 = net.layer4 = None  # would fail if touched
    assert list(net(torch.randn(1, 3, 33, 33), ("stage2",))) == ["stage2"]


def test_features_match_the_authors(fixture_numbers):
    data = fixture_numbers("cwt_pspnet50_features")
    state = seeded_checkpoint(str(data["state_keys"]), int(data["state_seed"]))["state_dict"]
    state = {k.removeprefix("module."): v for k, v in state.items()}
    backbone, neck = ResNet(50), PyramidPooling(ResNet(50).channels)
    load_strict(backbone, {k: v for k, v in state.items() if k.startswith("layer")}, "backbone")
    own = {k.removeprefix("ppm."): v for k, v in state.items() if k.startswith(("ppm.", "bottleneck."))}
    load_strict(neck, own, "neck")
    with torch.no_grad():
        features = neck.eval()(backbone.eval()(torch.tensor(data["image"])))
    assert relative_error(features, data["features"]) < 1e-4
