"""The network as it is computed equals the network as it is written, and follows its parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones.fold import fold
from fss.backbones.frozen import freeze
from fss.backbones.resnet import ResNet
from fss.heads import build_head
from fss.model import FewShotModel, frozen_checksum
from fss.necks.ppm import PyramidPooling, convolve_resized
from fss.ops import resize
from tests.conftest import relative_error


def unsettled(module: nn.Module) -> nn.Module:
    """Norms with statistics and weights that do something."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 2.0),
                (norm.weight.data, 0.5, 1.5), (norm.bias.data, -0.3, 0.3),
            ):  # fmt: skip
                tensor.uniform_(low, high)
    return freeze(module)


@pytest.mark.parametrize(("layers", "deep"), [(18, True), (34, False), (50, True), (50, False), (101, True)])
def test_folded_network_equals_the_written_one(layers, deep):
    backbone = unsettled(ResNet(layers, deep))
    neck = unsettled(PyramidPooling(backbone.channels, 64))
    levels = ("stage1", "stage2", "stage3", "stage4")
    images = torch.randn(2, 3, 65, 49)
    with torch.no_grad():
        plain, folded = backbone(images, levels), fold(backbone, torch.float32)(images, levels)
        assert max(relative_error(folded[k], plain[k]) for k in levels) < 1e-5
        assert relative_error(fold(neck, torch.float32)(plain), neck(plain)) < 1e-5
        half = fold(neck, torch.bfloat16)(fold(backbone, torch.bfloat16)(images.bfloat16()))
    assert relative_error(half.float(), neck(plain)) < 0.05
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold(backbone, torch.float32).modules())


@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_pools_pass_the_convolution_at_their_own_size(cells):
    x, weight = torch.randn(2, 8, cells, cells), torch.randn(5, 8, 3, 3)
    wanted = F.conv2d(resize(x, (13, 9)), weight, padding=1)
    assert relative_error(convolve_resized(x, weight, (13, 9)), wanted) < 1e-5


def test_pyramid_pooling_equals_the_concatenation():
    neck, x = unsettled(PyramidPooling({"stage4": 64}, 32)), torch.randn(2, 64, 13, 9)
    with torch.no_grad():
        whole = neck.bottleneck(torch.cat([x, *(resize(pool(x), (13, 9)) for pool in neck.features)], 1))
        assert relative_error(neck({"stage4": x}), whole) < 1e-5


def test_the_copy_follows_loaded_and_edited_parameters():
    backbone = unsettled(ResNet(18))
    head = build_head("prototype", {"level": "stage3"}, backbone.channels)
    model, images = FewShotModel(backbone, None, head), torch.randn(1, 3, 33, 33)
    before, names = model.extract(images)["stage3"], set(model.state_dict())
    changed = {
        k: v * 1.5 if k.endswith("layer3.0.conv1.weight") else v for k, v in model.state_dict().items()
    }
    model.load_state_dict(changed)
    assert not torch.allclose(model.extract(images)["stage3"], before)
    wanted = backbone(images, ("stage3",))["stage3"]
    assert relative_error(model.extract(images)["stage3"], wanted) < 1e-5
    assert set(model.state_dict()) == names and "layer3.0.bn1.weight" in " ".join(names)
    digest = frozen_checksum(model)
    model.to(torch.float64).to(torch.float32)
    assert frozen_checksum(model) == digest
    assert relative_error(model.extract(images)["stage3"], wanted) < 1e-5
