"""Pure functions against numbers made by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.ops import (
    binary_mask,
    class_weights,
    foreground,
    interpolation_matrix,
    loss_weight,
    repeat,
    resize,
    segmentation_loss,
    without_foreground,
)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(("cells", "pixels"), [(13, 97), (1, 5), (5, 5), (7, 3)])
def test_interpolation_matrix_is_resize(cells, pixels, corners):
    x = torch.randn(2, 3, cells, cells)
    matrix = interpolation_matrix(cells, pixels, corners=corners)
    wanted = F.interpolate(x, size=(pixels, pixels), mode="bilinear", align_corners=corners)
    assert torch.allclose(matrix @ x @ matrix.T, wanted, atol=1e-5)
    assert torch.equal(resize(x, (pixels, pixels), corners), wanted)


def test_binary_mask_keeps_255():
    labels = torch.tensor([[[0, 3, 255]], [[3, 7, 7]]], dtype=torch.uint8)
    assert binary_mask(labels, torch.tensor([3, 7])).tolist() == [[[0, 1, 255]], [[0, 1, 1]]]


def test_class_weights_without_foreground_are_one():
    masks = torch.tensor([[[0, 0, 0, 1, 255]], [[0, 0, 0, 0, 255]]])
    assert class_weights(masks).tolist() == [[1.0, 3.0], [1.0, 1.0]]


def test_balanced_loss_is_the_weighted_mean_of_each_episode():
    logits, masks = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 9, 9))
    masks[0, 0] = 255
    single = [
        F.cross_entropy(
            resize(logits[i : i + 1], (9, 9)), masks[i : i + 1], class_weights(masks)[i], ignore_index=255
        )
        for i in range(2)
    ]
    assert segmentation_loss(logits, masks, balanced=True) == pytest.approx(float(sum(single) / 2), rel=1e-5)


def test_unbalanced_loss_is_the_mean_over_all_pixels_of_the_batch():
    logits, masks = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 9, 9))
    masks[0, :6] = 255
    wanted = F.cross_entropy(resize(logits, (9, 9)), masks, ignore_index=255)
    assert segmentation_loss(logits, masks, balanced=False) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_all_ignored_adds_nothing(balanced):
    loss = segmentation_loss(torch.randn(1, 2, 3, 3), torch.full((1, 9, 9), 255), balanced)
    assert float(loss) == 0.0


def test_foreground_is_the_argmax_of_the_resized_logits():
    logits = torch.randn(3, 2, 7, 5)
    assert torch.equal(foreground(logits, (31, 22)), resize(logits, (31, 22)).argmax(1))


def test_one_map_gives_the_loss_of_two():
    logits, masks = 5 * torch.randn(2, 2, 7, 5), torch.randint(0, 2, (2, 13, 9))
    masks[0, 0] = 255
    wanted = F.cross_entropy(resize(logits, (13, 9)), masks, ignore_index=255)
    assert torch.allclose(segmentation_loss(logits, masks, balanced=False), wanted, atol=1e-6)


def test_a_loss_counts_for_its_episodes_or_for_its_pixels():
    masks = torch.tensor([[[0, 1, 255]], [[255, 255, 1]]])
    assert loss_weight(masks, balanced=True) == 2 and loss_weight(masks, balanced=False) == 3
    assert loss_weight(masks, balanced=True).dtype == torch.float32


def test_an_episode_without_foreground_is_told():
    masks = torch.tensor([[[[0, 255]], [[0, 1]]], [[[0, 255]], [[0, 0]]]])  # (B,K,1,2)
    assert without_foreground(masks).tolist() == [False, True]


class Halving(nn.Module):
    def forward(self, x):
        return repeat(lambda y: y / 2 + 1, x, 40)


def test_repeated_steps_are_a_loop_in_an_exported_graph():
    x = torch.rand(3)
    wanted = x
    for _ in range(40):
        wanted = wanted / 2 + 1
    assert torch.allclose(Halving()(x), wanted) and torch.equal(repeat(lambda y: y + 1, x, 0), x)
    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this PyTorch cannot tell that it exports")
    exported = torch.export.export(Halving(), (x,))
    assert len(exported.graph.nodes) < 20
    assert torch.allclose(exported.module()(x), wanted)
