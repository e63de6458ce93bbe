"""The three losses against the published program's numbers, their gradient against autograd's."""

import pytest
import torch

from fss.bench import plain_cluster
from fss.episode import IGNORE
from fss.scribbles import objective as fused
from fss.scribbles.objective import Weights, objective
from tests.conftest import relative_error

NAMES = ("similarity_loss", "continuity_loss", "scribble_loss")


@pytest.mark.parametrize("strip", [2**18, 700])  # in one strip, and in strips of two rows
def test_losses_are_the_published_ones(fixture_numbers, monkeypatch, strip):
    monkeypatch.setattr(fused, "_STRIP", strip)
    numbers = fixture_numbers("dfc_losses")
    response, scribble = (torch.from_numpy(numbers[k]) for k in ("response", "scribble"))
    alone = objective(response, None, Weights())
    assert (alone.labels.numpy() == numbers["labels"]).all()
    assert relative_error(alone.losses[:2], [float(numbers[k]) for k in NAMES[:2]]) < 1e-4
    total = alone.losses @ torch.tensor(Weights())
    assert relative_error(total, float(numbers["total_unsupervised"])) < 1e-4

    marked = objective(response, scribble, Weights())
    wanted = [float(numbers[k]) for k in ("similarity_loss_unscribbled", *NAMES[1:])]
    assert relative_error(marked.losses, wanted) < 1e-4
    assert relative_error(marked.losses @ torch.tensor(Weights()), float(numbers["total_scribble"])) < 1e-4


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("strip", [2**18, 1])
def test_gradient_is_autograds(monkeypatch, marked, strip):
    monkeypatch.setattr(fused, "_STRIP", strip)
    response = torch.randn(1, 6, 9, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scribble = None
    if marked:
        scribble = torch.full((9, 11), IGNORE)
        scribble[2:4, 3:9], scribble[7, :5] = 0, 4
    weights = Weights(0.7, 1.3, 0.5)
    (plain_cluster.losses(response, scribble) * torch.tensor(weights)).sum().backward()
    found = objective(response, scribble, weights)
    assert relative_error(found.gradient, response.grad) < 1e-5


def test_everything_marked_and_one_row():
    response = torch.randn(1, 3, 1, 5, generator=torch.Generator().manual_seed(1))
    found = objective(response, torch.zeros(1, 5), Weights())
    assert found.losses.isfinite().all() and found.losses[0] == 0
    assert found.gradient.isfinite().all()


def test_the_buffer_is_used_again():
    response = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    first = objective(response, None, Weights())
    kept = first.gradient.clone()
    again = objective(response, None, Weights(), first.gradient)
    assert again.gradient is first.gradient and torch.equal(again.gradient, kept)
