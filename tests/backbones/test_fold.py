"""The network as it is computed equals the network as it is written, and follows its parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves
from torchvision import models

from fss.backbones.fold import fold
from fss.backbones.frozen import freeze
from fss.backbones.resnet import ResNet
from fss.heads import build_head
from fss.model import FewShotModel, frozen_checksum
from fss.necks import Decoded, Neck
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


@pytest.mark.parametrize(
    ("layers", "stem"), [(18, "deep"), (34, "plain"), (50, "deep"), (50, "plain"), (101, "deep")]
)
def test_folded_network_equals_the_written_one(layers, stem):
    backbone = unsettled(ResNet(layers, stem))
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


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def run_on(image: torch.Tensor):
    return lambda network: network(image)


@pytest.mark.parametrize(
    ("name", "given", "all_folded"),
    [
        ("tf_efficientnet_lite0", {}, True),
        ("regnety_002", {}, True),
        ("mobilenetv3_small_100", {}, True),
        ("densenet121", {}, False),  # most of its norms stand before a convolution
        ("resnetv2_50", {"norm_layer": "batchnorm2d"}, False),
        ("convnext_atto", {}, True),
        ("vit_tiny_patch16_224", {"img_size": 64}, True),
        ("swin_tiny_patch4_window7_224", {"img_size": 64}, True),
    ],
)
def test_timms_networks_fold_only_what_is_right(name, given, all_folded):
    """Their norms are subclasses that hold the activation; some stand before their convolution."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = unsettled(timm.create_model(name, **given))
    probe, image = run_on(torch.randn(1, 3, 64, 64)), torch.randn(2, 3, 64, 64)
    folded = fold(network, torch.float32, probe)
    assert relative_error(folded(image), network(image)) < 1e-4
    assert norms(folded) == 0 if all_folded else 0 < norms(folded) < norms(network)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5"])
def test_torchvisions_networks_fold_only_what_is_right(name):
    torch.manual_seed(0)
    network = unsettled(getattr(models, name)())
    folded = fold(network, torch.float32, run_on(torch.randn(1, 3, 64, 64)))
    image = torch.randn(2, 3, 64, 64)
    assert relative_error(folded(image), network(image)) < 1e-4
    assert norms(folded) == (62 if name == "densenet121" else 0)


class Pair(nn.Module):
    """A convolution and a norm, whose order `run` decides."""

    def __init__(self, run, norm=None, **given) -> None:
        super().__init__()
        self.norm = norm or nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.other = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def twice(m, x):
    return m.norm(m.conv(m.conv(x)))


def shared_norm(m, x):
    return m.norm(m.conv(x)) + m.norm(m.other(x))


def read_beside(m, x):
    y = m.conv(x)
    return m.norm(y) + y


def handed_out(m, x):
    y = m.conv(x)
    return {"stage1": m.norm(y), "stage2": y}


def changed_between(m, x):
    return m.norm(m.relu(m.conv(x)))


def weight_read(m, x):
    return m.norm(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1)


def behind_another(m, x):
    return m.conv(m.norm(m.other(x)))


def norm_first(m, x):
    return m.conv(m.norm(x))


@pytest.mark.parametrize(
    ("run", "left"),
    [
        (lambda m, x: m.norm(m.conv(x)), 0), (behind_another, 0),
        (norm_first, 1), (twice, 1), (shared_norm, 1), (read_beside, 1), (handed_out, 1),
        (changed_between, 1), (weight_read, 1),
    ],
)  # fmt: skip
def test_the_order_of_execution_counts(run, left):
    network, x = unsettled(Pair(run)), torch.randn(2, 8, 9, 9)
    folded = fold(network, torch.float32, run_on(torch.randn(1, 8, 9, 9)))
    assert norms(folded) == left
    for got, wanted in zip(tree_leaves(folded(x)), tree_leaves(network(x)), strict=True):
        assert relative_error(got, wanted) < 1e-5


def test_norms_that_are_not_one_linear_function_stay():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    run, x = lambda m, x: m.norm(m.conv(x)), torch.randn(2, 8, 9, 9)
    for norm in (nn.BatchNorm2d(8, track_running_stats=False), Doubled(8)):
        network = freeze(Pair(run, norm))
        assert norms(fold(network, torch.float32, run_on(x))) == 1
    watched = freeze(Pair(run))
    watched.conv.register_forward_hook(lambda module, inputs, output: output.relu())
    assert torch.allclose(fold(watched, torch.float32, run_on(x))(x), watched(x))
    assert norms(fold(watched, torch.float32, run_on(x))) == 1


def test_without_a_run_only_the_order_inside_a_sequential_counts():
    network = unsettled(Pair(lambda m, x: m.norm(m.conv(x))))
    assert norms(fold(network, torch.float32)) == 1
    sequence = unsettled(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)))
    x = torch.randn(2, 8, 5, 5)
    assert norms(fold(sequence, torch.float32)) == 1
    assert relative_error(fold(sequence, torch.float32)(x), sequence(x)) < 1e-5

    def failing(network):
        raise RuntimeError("these inputs do not fit")

    assert norms(fold(sequence, torch.float32, failing)) == 1


def test_a_sequential_that_is_not_run_in_order_is_left_alone():
    """`forward` reaches into its Sequential: nothing runs as the children stand."""

    def run(m, x):
        conv, norm = m.both
        return norm(x) + F.conv2d(x, conv.weight, conv.bias)

    network, x = Pair(run), torch.randn(2, 8, 5, 5)
    network.both = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    network = unsettled(network)
    folded = fold(network, torch.float32, run_on(x))
    assert torch.equal(folded(x), network(x)) and norms(folded) == norms(network)


class Unordered(Neck):
    """A neck whose children stand in another order than they run in."""

    levels = ("stage3", "stage4")

    def __init__(self, inputs, channels: int = 6) -> None:
        super().__init__(inputs, channels)
        self.merge, self.norm = nn.Conv2d(8, channels, 1), nn.BatchNorm2d(8)
        self.reduce, self.last = nn.Conv2d(12, 8, 1), nn.BatchNorm2d(channels)

    def decode(self, features):
        x = self.norm(self.reduce(torch.cat([features["stage3"], features["stage4"]], 1)))
        return Decoded(self.last(self.merge(x.relu())), {}, {})


def test_a_neck_whose_children_stand_in_another_order():
    neck = unsettled(Unordered({"stage3": 4, "stage4": 8}))
    x = {"stage3": torch.randn(2, 4, 7, 5), "stage4": torch.randn(2, 8, 7, 5)}
    folded = fold(neck, torch.float32, lambda network: network(x))
    assert relative_error(folded(x), neck(x)) < 1e-5
    assert norms(folded) == 0 and norms(fold(neck, torch.float32)) == 2
    assert relative_error(fold(neck, torch.float32)(x), neck(x)) < 1e-5
