"""Backbone and neck: shapes, no deeper than asked, and the authors' features."""

import copy

import pytest
import torch

from fss.backbones.base import STAGES
from fss.backbones.fold import fold
from fss.backbones.resnet import BLOCKS, ResNet, ResNet50
from fss.backbones.weights import load_strict
from fss.necks.ppm import PyramidPooling
from fss.ops import normalise, to_rgb
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


@pytest.mark.parametrize("layers", [18, 34, 50, 101])
@pytest.mark.parametrize("stem", ["deep", "plain"])
def test_stages_have_stride_4_8_8_8(layers, stem):
    net = ResNet(layers, stem).eval()
    with torch.no_grad():
        out = net(torch.randn(1, 3, 65, 49), ("stage1", "stage2", "stage3", "stage4"))
    assert [tuple(x.shape[2:]) for x in out.values()] == [(17, 13), (9, 7), (9, 7), (9, 7)]
    assert {k: x.shape[1] for k, x in out.items()} == {k: net.channels[k] for k in STAGES}


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
    net.layer2[1] = None
    assert list(net(torch.randn(1, 3, 33, 33), ("stage2.0:sum",))) == ["stage2.0:sum"]


def test_images_are_bytes_or_floats_and_normalised_inside():
    net, image = unsettled(ResNet(18)), torch.randint(0, 256, (1, 3, 33, 33), dtype=torch.uint8)
    want = net.layer1(net.layer0(normalise(image)))
    assert torch.allclose(net(image, ("stage1",))["stage1"], want, atol=1e-5)
    assert torch.equal(net(image.float(), ("stage1",))["stage1"], net(image, ("stage1",))["stage1"])


@pytest.mark.parametrize("layers", [18, 50])
def test_blocks_and_sums_are_those_of_the_stages(layers):
    net, images = unsettled(ResNet(layers)), 255 * torch.rand(2, 3, 49, 33)
    stages, every = net(images, STAGES), net(images, tuple(net.channels))
    assert set(every) == set(net.channels) == set(net.strides)
    for stage, depth in zip(STAGES, BLOCKS[layers], strict=True):
        assert torch.equal(every[stage], stages[stage])
        assert torch.equal(every[f"{stage}.{depth - 1}"], stages[stage])
        for i in range(depth):
            total = every[f"{stage}.{i}:sum"]
            assert total.min() < 0 and torch.equal(total.relu(), every[f"{stage}.{i}"])
    folded = fold(net, torch.float32)(images, tuple(net.channels))
    assert max(relative_error(folded[k], x) for k, x in every.items()) < 1e-5
    assert torch.equal(fold(net, torch.float32)(images)["stage4"], folded["stage4"])


def test_going_on_from_a_stage_is_the_rest_of_the_network():
    net, images = unsettled(ResNet(18)), 255 * torch.rand(1, 3, 33, 33)
    every = net(images, (*STAGES, "stage4.0:sum"))
    rest = net.resume(every["stage2"].clone(), "stage2", ("stage4", "stage4.0:sum"))
    assert list(rest) == ["stage4.0:sum", "stage4"] and all(torch.equal(rest[k], every[k]) for k in rest)


def test_a_view_without_deeper_stages_leaves_the_network_whole():
    net, images = unsettled(ResNet(18)), 255 * torch.rand(1, 3, 33, 33)
    view = net.up_to(("stage2",))
    assert torch.equal(view(images, ("stage2",))["stage2"], net(images, ("stage2",))["stage2"])
    assert not hasattr(view, "layer3") and hasattr(net, "layer4")


def test_a_bool_still_means_the_deep_stem():
    assert ResNet(18, True).deep_stem and not ResNet(18, False).deep_stem
    with pytest.raises(ValueError, match="stem 'flat' is not offered; allowed: auto, deep, plain"):
        ResNet(18, "flat")
    assert list(ResNet50("plain", 32).state_dict()) == list(ResNet(50, False).state_dict())


def test_frozen_buffers_do_not_move():
    net = unsettled(ResNet(18))
    before = copy.deepcopy(net.state_dict())
    net(255 * torch.rand(2, 3, 33, 33), tuple(net.channels))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_features_match_the_authors(fixture_numbers):
    """The fixture's image is normalised: as RGB, the backbone's own normalisation brings it back."""
    data = fixture_numbers("cwt_pspnet50_features")
    state = seeded_checkpoint(str(data["state_keys"]), int(data["state_seed"]))["state_dict"]
    state = {k.removeprefix("module."): v for k, v in state.items()}
    backbone, neck = ResNet(50), PyramidPooling(ResNet(50).channels)
    load_strict(backbone, {k: v for k, v in state.items() if k.startswith("layer")}, "backbone")
    own = {k.removeprefix("ppm."): v for k, v in state.items() if k.startswith(("ppm.", "bottleneck."))}
    load_strict(neck, own, "neck")
    with torch.no_grad():
        features = neck.eval()(backbone.eval()(to_rgb(torch.tensor(data["image"]))))
    assert relative_error(features, data["features"]) < 1e-4
