"""What every head must keep, run over all of them: a new head is tested by being in `HEADS`."""

import json

import pytest
import torch
from torchvision.models import VisionTransformer

from fss.backbones.frozen import checksum
from fss.backbones.resnet import ResNet
from fss.backbones.vit import VIT_CHANNELS, Tokens
from fss.config import NECK_OPTIONS
from fss.errors import UserError
from fss.heads import HEADS, find_head, head_options
from fss.model import build_model
from fss.necks import NECKS, make_neck
from fss.ops import segmentation_loss

HEIGHT, WIDTH = 49, 65  # not square, so that a swapped axis shows
SMALL = {"width": 16, "sizes": [7, 4], "cells": 2}
# Beside every head with its defaults: the options that take another way through it.
VARIANTS = [
    ("cwt", {"transformer": False}),
    ("cwt", {"start": "identity"}),
    ("asgnet", SMALL),
    ("asgnet", {**SMALL, "context": "aspp"}),
    ("asgnet", {**SMALL, "prototypes": 1, "similarity": "mean"}),
    ("asgnet", {**SMALL, "tokens": "patches+class"}),
    ("asgnet", {**SMALL, "features": "neck"}),
    ("prototype", {"level": "stage3"}),
    ("prototype", {"embed": 8, "align": True}),
    ("examples.my_head.my_head:MyHead", {}),
]


def stands_on_neck(name, options):
    if "features" in options:
        return options["features"] == "neck"
    return "level" not in options and "neck" in find_head(name).levels


def cases(heads, necks):
    return [
        pytest.param(name, options, neck, id=f"{name}-{','.join(map(str, options.values()))}-{neck}")
        for name, options in heads
        for neck in necks
        if neck != "none" or not stands_on_neck(name, options)
    ]


CASES = cases([*((name, {}) for name in HEADS), *VARIANTS], ["ppm", "none"])
# Every head that can stand on the neck, on every other one: for what a neck has a part in.
STANDING = [("cwt", {"steps": 20}), ("prototype", {}), ("asgnet", {**SMALL, "features": "neck"})]
ON_NECKS = cases(STANDING, [neck for neck in NECKS if neck != "ppm"])


def build(name, options, neck, bf16=False, **of_neck):
    torch.manual_seed(0)
    backbone = ResNet(18)
    tokens = tiny_tokens() if "tokens" in options else None
    made = None if neck == "none" else make_neck(neck, backbone.channels, {"channels": 16, **of_neck})
    return build_model(name, options, backbone, made, tokens, bf16).eval()


def tiny_tokens():
    vit = VisionTransformer(32, 16, num_layers=1, num_heads=4, hidden_dim=VIT_CHANNELS["vit"], mlp_dim=8)
    return Tokens(vit)


def episodes(model, batch=2, shots=1, fill=None):
    torch.manual_seed(1)
    query, support = torch.randn(batch, 3, HEIGHT, WIDTH), torch.randn(batch, shots, 3, HEIGHT, WIDTH)
    masks = (torch.rand(batch, shots, HEIGHT, WIDTH) > 0.6).long()
    masks[..., :4] = 255
    if fill is not None:
        masks[:] = fill
    extras = [model.head.prepare(m, seed=i) for i, m in enumerate(masks)]
    return query, support, masks, {k: torch.stack([e[k] for e in extras]) for k in extras[0]}


@pytest.mark.parametrize(("name", "options", "neck"), CASES)
@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("fill", [None, 0, 1, 255])
def test_logits_are_finite_whatever_the_supports_hold(name, options, neck, shots, fill):
    model = build(name, options, neck)
    with torch.no_grad():
        out = model.output(*episodes(model, 2, shots, fill))
    assert out.logits.shape[:2] == (2, 2) and out.logits.isfinite().all()
    assert all(note.shape == (2,) for note in out.notes.values())


@pytest.mark.parametrize(("name", "options", "neck"), CASES + ON_NECKS)
def test_a_batch_equals_its_episodes_one_by_one(name, options, neck):
    model = build(name, options, neck)
    query, support, masks, extras = episodes(model, 3, 2)
    with torch.no_grad():
        together = model.output(query, support, masks, extras).logits
        for i in range(3):
            own = slice(i, i + 1)
            own_extras = {k: v[own] for k, v in extras.items()}
            alone = model.output(query[own], support[own], masks[own], own_extras).logits
            assert torch.allclose(alone, together[own], atol=1e-4)


@pytest.mark.parametrize(("name", "options", "neck"), CASES + ON_NECKS)
@pytest.mark.parametrize("bf16", [False, True])
def test_only_the_head_learns_and_nothing_frozen_moves(name, options, neck, bf16):
    model = build(name, options, neck, bf16).train()
    assert model.head.training and not any(m.training for part in model.frozen for m in part.modules())
    frozen = checksum(torch.nn.ModuleList(model.frozen))
    if not model.head.learns:
        return
    target = torch.randint(0, 2, (2, HEIGHT, WIDTH))
    out = model.output(*episodes(model), target)
    loss = segmentation_loss(out.logits, target, model.head.balanced_loss) + sum(out.losses.values())
    loss.backward()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    optimizer.step()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    assert all(p.grad is None for part in model.frozen for p in part.parameters())
    assert checksum(torch.nn.ModuleList(model.frozen)) == frozen


@pytest.mark.parametrize(("name", "options", "neck"), CASES + ON_NECKS)
def test_model_segments_at_image_size_and_explains_itself(name, options, neck):
    model = build(name, options, neck)
    query, support, masks, extras = episodes(model, 2, 3)
    with torch.no_grad():
        assert model(query, support, masks).shape == (2, 2, HEIGHT, WIDTH)
        features = [model.encode(query), model.encode(support.flatten(0, 1))]
        theirs = {k: v.unflatten(0, (2, 3)) for k, v in features[1].items() if k not in model.head.query_only}
        panels = model.head.explain(features[0], theirs, masks, extras)
        moved = model.explain_neck(query)
    assert panels or name not in HEADS
    aligned = stands_on_neck(name, options) and neck in NECK_OPTIONS["align"]
    assert bool(moved) == aligned
    for panel in moved:
        assert panel.values.dim() == 4 and panel.values.shape[::3] == (2, 2) and panel.over == "query"
    for panel in panels:
        assert panel.values.shape[:-2] == ((2, 3) if panel.over == "support" else (2,))
        if panel.values.is_floating_point():
            assert panel.values.min() >= 0 and panel.values.max() <= 1


@pytest.mark.parametrize(("name", "options", "neck"), CASES)
def test_sizes_off_the_grid_and_a_query_of_255_alone(name, options, neck):
    """Where sides are not 8n+1, support masks become soft on the feature cells."""
    model = build(name, options, neck).train()
    query, support = torch.randn(2, 3, 50, 71), torch.randn(2, 2, 3, 50, 71)
    masks = torch.zeros(2, 2, 50, 71, dtype=torch.int64)
    masks[..., 9:31, 17:50] = 1
    extras = [model.head.prepare(m, 0) for m in masks]
    extras = {k: torch.stack([e[k] for e in extras]) for k in extras[0]}
    target = torch.full((2, 50, 71), 255)
    out = model.output(query, support, masks, extras, target)
    loss = segmentation_loss(out.logits, target, model.head.balanced_loss) + sum(out.losses.values())
    assert out.logits.isfinite().all() and torch.as_tensor(loss).isfinite()


@pytest.mark.parametrize(("name", "options", "neck"), CASES)
def test_a_head_is_made_again_from_what_it_says_of_itself(name, options, neck):
    """Checkpoints keep a head's options as plain values."""
    kept = head_options(name, options)
    assert head_options(name, kept) == kept
    json.dumps(kept)


@pytest.mark.parametrize(("name", "options", "neck"), CASES)
def test_prepare_is_pure(name, options, neck):
    model = build(name, options, neck)
    masks = torch.randint(0, 2, (2, HEIGHT, WIDTH))
    before = torch.get_rng_state()
    a, b = model.head.prepare(masks, 7), model.head.prepare(masks, 7)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(torch.get_rng_state(), before)


def test_asgnet_refuses_cells_that_its_seeds_do_not_fit():
    model = build("asgnet", {**SMALL, "features": "neck"}, "sfnet", stride=4)
    with pytest.raises(UserError, match=r"stride 8, 7 x 9 cells .* got 13 x 17; set .*neck.stride=8"):
        model.output(*episodes(model))
