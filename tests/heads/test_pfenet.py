"""PFENet's parts against the authors' numbers, against plain code, and by hand."""

import json

import pytest
import torch

from fss.exchange.convert import _PFENET, _renamed
from fss.heads import Encoded
from fss.heads.context import size_of
from fss.heads.pfenet import PFENet, support_vector
from fss.heads.prior import priors
from fss.ops import resize, segmentation_loss
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

CHANNELS = {"stage1": 8, "stage2": 512, "stage3": 1024, "stage4": 256}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


def shares(masks, size):
    return resize((torch.from_numpy(masks) == 1).float(), size)


@pytest.mark.parametrize("name", ["pfenet_prior_1shot", "pfenet_prior_5shot"])
def test_the_prior_is_the_published_one(fixture_numbers, name):
    numbers = fixture_numbers(name)
    query, support = (torch.from_numpy(numbers[f"{which}_stage4"]) for which in ("query", "support"))
    found = priors(query, support, shares(numbers["support_masks"], query.shape[-2:]))
    assert relative_error(found.mean(1, keepdim=True), numbers["prior"]) < 1e-4


def head_and_episodes(numbers):
    """The head with a fixture's weights, and its episodes."""
    b, k, n, s = (int(numbers[name]) for name in ("batch", "shots", "cells", "size"))
    head = PFENet(CHANNELS, sizes=tuple(numbers["scales"].tolist()))
    state = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    head.load_state_dict({k.removeprefix("head."): v for k, v in _renamed(plain, _PFENET).items()})
    for part in head.modules():
        if isinstance(part, torch.nn.Dropout2d):
            part.p = 0.0
    seed = int(numbers["feature_seed"])
    query = {f"stage{i}": drawn(seed + i, b, CHANNELS[f"stage{i}"], n, n) for i in (2, 3, 4)}
    support = {f"stage{i}": drawn(seed + 10 + i, b, k, CHANNELS[f"stage{i}"], n, n) for i in (2, 3, 4)}
    theirs = head.encode_support({name: x.flatten(0, 1) for name, x in support.items()})
    masks = torch.from_numpy(numbers["support_masks"])
    target = torch.from_numpy(numbers["query_mask"])
    theirs = {name: x.unflatten(0, (b, k)) for name, x in theirs.items()}
    return head, Encoded(head.encode(query), theirs, masks, range(b), query_mask=target), (s, s)


@pytest.mark.parametrize("name", ["pfenet_head_1shot", "pfenet_head_5shot_relative"])
def test_the_head_gives_the_published_numbers(fixture_numbers, name):
    numbers = fixture_numbers(name)
    head, e, size = head_and_episodes(numbers)
    scales = []
    head.context.register_forward_hook(lambda module, inputs, output: scales.extend(output[1]))
    out = head(e)
    reduced = e.query["reduced"][:, ::8].detach()
    assert relative_error(reduced, numbers["query_reduced_every_8th_channel"]) < 1e-4
    assert relative_error(support_vector(e).detach(), numbers["support_vector"]) < 1e-4
    first = size_of(head.context.sizes[0], out.logits.shape[-2:])
    prior = resize(head.explain(e)[0].values[:, None], first)[:, 0, ::4, ::4]
    assert relative_error(prior, numbers["prior_at_first_scale_every_4th"]) < 1e-4
    for i, x in enumerate(scales):
        step = 4 if x.shape[-1] > 16 else 1
        assert relative_error(x.detach()[..., ::step, ::step], numbers[f"scale{i}_logits"]) < 1e-4
    assert relative_error(out.logits.detach(), numbers["cells_logits"]) < 1e-4
    logits = resize(out.logits.detach(), size)
    assert relative_error(logits[..., ::4, ::4], numbers["logits_every_4th_pixel"]) < 1e-4
    wrong = (logits.argmax(1).sum((1, 2)) - torch.from_numpy(numbers["foreground_pixels"])).abs()
    assert wrong.max() <= 2
    main = segmentation_loss(out.logits, e.query_mask, head.balanced_loss)
    assert main.item() == pytest.approx(float(numbers["main_loss"]), rel=1e-4)
    assert out.losses["auxiliary"].item() == pytest.approx(float(numbers["auxiliary_loss"]), rel=1e-4)
    (main + out.losses["auxiliary"]).backward()
    norms = json.loads(str(numbers["gradient_norms"]))
    named = {f"head.{name}": p for name, p in head.named_parameters()}
    renamed = _renamed({name.removeprefix("module."): name for name in norms}, _PFENET)
    assert renamed.keys() == named.keys()
    for ours, theirs in renamed.items():
        assert float(named[ours].grad.norm()) == pytest.approx(norms[theirs], rel=1e-4), ours
