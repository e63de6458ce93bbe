"""L2G's targets and losses: the published program's numbers, and hand-made ones where those do not reach."""

import pytest
import torch
from torch import nn

from fss.backbones.resnet import ResNet18
from fss.l2g.correlation import PixelCorrelation
from fss.l2g.networks import (
    L2G,
    ResponseNet,
    aligned_probability,
    attention,
    classification_loss,
    image_logits,
    parameter_groups,
    transfer_loss,
    transfer_target,
)
from tests.conftest import relative_error


@pytest.fixture
def published(fixture_numbers):
    """The fixture as tensors, with the labels of each crop."""
    numbers = {k: torch.as_tensor(v) for k, v in fixture_numbers("l2g_transfer").items()}
    numbers["boxes"] = numbers.pop("boxes_xyxy_image_index_first")
    numbers["labels"] = numbers["image_labels"][numbers["boxes"][:, 0].long()]
    return numbers


def test_published_target_probability_and_loss(published):
    p = published
    target = transfer_target(p["local_response"], p["labels"], p["saliency"])
    assert relative_error(target, p["target"]) < 1e-4
    probability = aligned_probability(p["global_response"], p["boxes"], (10, 10))
    assert relative_error(probability, p["aligned_probability"]) < 1e-4
    assert relative_error(transfer_loss(p["global_response"], p["boxes"], target), p["mse"]) < 1e-4


# One crop of 1 x 4 pixels, two classes and the background; the image shows the first class alone.
RESPONSE = torch.tensor([[[[4.0, 2.0, -1.0, 1.0]], [[9.0, 9.0, 9.0, 9.0]], [[1.0, 2.0, 4.0, -3.0]]]])
LABELS = torch.tensor([[1.0, 0.0]])


def test_attention_by_hand():
    # Over their maxima: class 1 gives 1, .5, 0, .25; class 2 is absent; background .25, .5, 1, 0.
    kept = attention(RESPONSE, LABELS)[0, :, 0]
    expected = torch.tensor([[1.0, 0.5, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    assert torch.allclose(kept, expected, atol=1e-6)


def test_grey_saliency_gives_its_own_values():
    grey = torch.tensor([[[[0.8, 0.3, 0.4, 0.0]]]])
    target = transfer_target(RESPONSE, LABELS, grey)[0, :, 0]
    expected = torch.tensor([[0.8, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0]])
    assert torch.allclose(target, expected, atol=1e-6)


def test_saliency_is_resized_to_the_nearest():
    large = torch.tensor([0.8, 0.3, 0.4, 0.0]).repeat_interleave(8).expand(1, 1, 8, 32)
    small = torch.tensor([[[[0.8, 0.3, 0.4, 0.0]]]])
    assert torch.equal(transfer_target(RESPONSE, LABELS, large), transfer_target(RESPONSE, LABELS, small))


def test_crops_without_saliency_keep_their_attention():
    both = transfer_target(
        RESPONSE.repeat(2, 1, 1, 1), LABELS.repeat(2, 1), torch.zeros(2, 1, 1, 4), torch.tensor([True, False])
    )
    assert torch.equal(both[1:], attention(RESPONSE, LABELS))
    assert torch.equal(transfer_target(RESPONSE, LABELS), attention(RESPONSE, LABELS))
    assert both[0, 0].sum() == 0 and both[0, 2].sum() == 1  # nothing salient: the background alone


def test_no_gradient_reaches_the_local_network_through_the_target():
    local, whole = RESPONSE.clone().requires_grad_(), torch.randn(1, 3, 2, 8, requires_grad=True)
    target = transfer_target(local, LABELS)
    assert not target.requires_grad
    transfer_loss(whole, torch.tensor([[0.0, 8, 0, 40, 8]]), target).backward()
    assert whole.grad.abs().sum() > 0 and local.grad is None


def test_logits_and_loss_leave_the_background_out():
    other = RESPONSE.clone()
    other[:, -1] += 100
    assert torch.equal(image_logits(RESPONSE), torch.tensor([[1.5, 9.0]]))
    loss = classification_loss(other, LABELS)
    by_hand = -(torch.sigmoid(torch.tensor(1.5)).log() + torch.sigmoid(torch.tensor(-9.0)).log()) / 2
    assert loss == pytest.approx(float(by_hand), rel=1e-5) == classification_loss(RESPONSE, LABELS)


def network(**options):
    torch.manual_seed(0)
    backbone = ResNet18(stem="plain")
    correlation = PixelCorrelation(backbone.channels) if options.pop("correlation", False) else None
    return ResponseNet(backbone, 3, correlation, **options)


def test_networks_have_stride_8_and_the_background_last():
    whole, local = L2G(network(), network(correlation=True))(
        torch.randn(2, 3, 64, 64), torch.randn(4, 3, 40, 40)
    )
    assert whole.shape == (2, 4, 8, 8) and local.shape == (4, 4, 5, 5)
    assert L2G(network(level="stage3"), None)(torch.randn(1, 3, 64, 64))[1] is None


def test_frozen_norms_stay_and_the_others_learn():
    net = network(frozen_norms=2).train()
    norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    fixed = {n for n in norms if n.startswith(("backbone.layer0", "backbone.layer1"))}
    assert fixed and {n for n, m in norms.items() if not m.training} == fixed
    before = {n: m.running_mean.clone() for n, m in norms.items()}
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert {n for n, m in norms.items() if torch.equal(m.running_mean, before[n])} == fixed
    assert {n for n, m in norms.items() if m.weight.grad is None} == fixed


def test_new_layers_and_biases_learn_faster():
    model = L2G(network(correlation=True), None)
    groups = {g["factor"]: g["params"] for g in parameter_groups(model, (1, 2, 10, 20))}
    assert list(groups) == [1, 2, 10]  # new layers have no biases
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[1] for p in groups[10]} == {"classifier", "correlation"}
    assert all(names[id(p)].endswith("bias") for p in groups[2])
    assert sum(len(own) for own in groups.values()) == len(list(model.parameters()))
    assert len(parameter_groups(model, (1, 1, 1, 1))) == 1
