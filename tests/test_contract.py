"""What every head must keep, run over all of them: a new head is tested by being in `HEADS`."""

import copy
import functools
import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from fss.backbones.base import STAGES, Backbone, check_size
from fss.backbones.efficientnet import EfficientNetLite0
from fss.backbones.frozen import checksum
from fss.backbones.resnet import ResNet
from fss.backbones.timm import Timm
from fss.episode import Episode
from fss.errors import UserError
from fss.heads import HEADS, KIND, find_head
from fss.model import build_model
from fss.necks import NECKS, make_neck
from fss.ops import segmentation_loss
from fss.randomness import seeded
from tests.make import unmoved

HEIGHT, WIDTH = 49, 65  # not square, so that a swapped axis shows
SMALL = {"width": 16, "sizes": [7, 4], "cells": 2}
ENRICHED = {"width": 16, "sizes": [7, 4]}
DENSE = {"width": 16, "embed": 8}
UNCUT = {"pfenet": {"cut": "nothing"}, "bam": {"cut": "nothing"}}
# Options for maps of a few cells, where defaults are large.
SMALL_MAPS = {
    "asgnet": SMALL, "bam": {"width": 16}, "cwt": {"steps": 20}, "dcama": {"heads": 4}, "hdmnet": DENSE,
    "pfenet": ENRICHED,
}  # fmt: skip
USUAL = {name: SMALL_MAPS.get(name, {}) for name in HEADS}
ALIGNED = ("alignseg", "sfnet", "sfnet_gated")
# Beside every head: the options that take another way through it.
VARIANTS = [
    ("cwt", {"transformer": False}),
    ("cwt", {"start": "identity"}),
    ("asgnet", {**SMALL, "context": "aspp"}),
    ("asgnet", {**SMALL, "prototypes": 1, "similarity": "mean"}),
    ("asgnet", {**SMALL, "features": "neck"}),
    ("pfenet", {**ENRICHED, "sizes": [1, 0.5], "level": ["stage1", "stage3"]}),
    ("pfenet", {**ENRICHED, "level": "stage2", "cut": "image"}),
    ("pfenet", {**ENRICHED, "level": "neck", "deep": "neck", "cut": "nothing"}),
    ("bam", {"width": 16, "ensemble": False}),
    ("bam", {"width": 16, "level": "neck", "deep": "neck", "style": "stage1", "cut": "image"}),
    ("hdmnet", {**DENSE, "ensemble": False, "deep": "stage4"}),
    ("hdmnet", {**DENSE, "level": ["neck"], "deep": ["stage1", "stage3", "neck"], "style": "stage1"}),
    ("hsnet", {"shots": "mean"}),
    ("hsnet", {"levels": [["stage4"], ["stage3"], ["stage1"]]}),
    ("hsnet", {"levels": [["stage4"], ["stage3"], ["neck"]]}),
    ("insid3", {"level": ["stage3", "stage4"], "components": 0, "tau": 0.9}),
    ("insid3", {"level": "neck", "components": 3}),
    ("dcama", {"heads": 4, "levels": [["stage4"], ["stage3"], ["neck"]], "fine": "stage2"}),
    ("prototype", {"level": "stage3"}),
    ("prototype", {"embed": 8, "align": True}),
    ("repri", {"level": ["stage3", "stage4"], "weights": [1, 0.5, 0.5]}),
    ("repri", {"oracle": True, "valid": "label", "steps": 20}),
    ("votes", {"level": {"stage2": 0.7, "stage4": 1}}),
    ("votes_decoder", {"level": {"stage2": 0.7, "stage4": 1}, "width": 8}),
    ("examples.my_head.my_head:MyHead", {}),
]


class Patches(Backbone):
    """A backbone that is no ResNet: cells are the middles of patches, 4 x 4 pixels and up, and sides must be
    multiples of them; another mean and deviation, other names of layers."""

    corners, multiple, smallest = False, 4, 16
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 12, 16, 24)
        self.embed = nn.Conv2d(3, widths[0], 4, 4)
        self.merge = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        self.channels = dict(zip(STAGES, widths, strict=True))
        self.strides = dict(zip(STAGES, (4, 8, 16, 32), strict=True))

    def forward(self, images, levels=("stage4",)):
        height, width = images.shape[-2:]
        assert height % self.multiple == width % self.multiple == 0
        return self._on(self.embed(self.pixels(images)).relu(), 0, levels)

    def resume(self, x, after, levels):
        first = STAGES.index(after) + 1
        return self._on(self._next(x, first), first, levels)

    def _on(self, x, first, levels):
        out = {}
        for i in range(first, len(STAGES)):
            x = x if i == first else self._next(x, i)
            if STAGES[i] in levels:
                out[STAGES[i]] = x
        return out

    def _next(self, x, i):
        """Merge 2 x 2 cells; odd sides are padded, as patch networks do."""
        pad = (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)
        return self.merge[i - 1](nn.functional.pad(x, pad)).relu()


class Thin(ResNet):
    """A ResNet-18 of few channels, whose layers take little time."""

    widths = (8, 16, 24, 32)

    def __init__(self) -> None:
        super().__init__(18)


BACKBONES = {
    "resnet": Thin,
    "patches": Patches,
    "lite0": EfficientNetLite0,
    "vit": lambda: Timm("vit_tiny_patch16_224"),
}
# Each backbone's image sizes: a usual one, and one on which masks become soft on the feature cells.
SIZES = {"resnet": (HEIGHT, WIDTH), "patches": (48, 64), "lite0": (HEIGHT, WIDTH), "vit": (48, 64)}
ODD = {"resnet": (50, 71), "patches": (52, 76)}


def stands_on_neck(name, options):
    if name in ("bam", "hdmnet") and not options.get("ensemble", True):
        return False
    if "base" in find_head(name).levels:
        return True
    if "features" in options:
        return options["features"] == "neck"
    if "levels" in options:
        return ["neck"] in options["levels"]
    return options["level"] == "neck" if "level" in options else "neck" in find_head(name).levels


def cases(heads, networks):
    """Every head on every network; "own" is pyramid pooling for those that stand on a neck, else none."""
    every = [
        (
            name,
            options,
            backbone,
            ("ppm" if stands_on_neck(name, options) else "none") if neck == "own" else neck,
        )
        for name, options in heads
        for backbone, neck in networks
    ]
    return [
        pytest.param(*case, id="-".join([case[0], ",".join(map(str, case[1].values())), *case[2:]]))
        for case in every
    ]


# Heads that stand on the neck, each in a way of its own, on every other one: for what a neck has a part in.
STANDING = [
    ("cwt", {"steps": 20}),
    ("prototype", {}),
    ("asgnet", {**SMALL, "features": "neck"}),
    ("hdmnet", {**DENSE, "deep": ["neck", "stage4"]}),
]
CASES = [
    *cases(USUAL.items(), [("resnet", "own"), ("patches", "own")]),
    *cases(VARIANTS, [("resnet", "own")]),
    # A neck that the head does not ask for.
    *cases([(n, o) for n, o in USUAL.items() if not stands_on_neck(n, o)], [("resnet", "ppm")]),
]
LAZY = cases(USUAL.items(), [("resnet", "own")])
DEFAULTS = cases([(name, {}) for name in SMALL_MAPS], [("resnet", "ppm")])
OTHERS = [neck for neck in NECKS if neck != "ppm"]
# Every head on networks that people have: one of mobile phones, and a plain transformer, which cannot go on
# from a stage.
ON_NETWORKS = cases(
    [(name, options | UNCUT.get(name, {})) for name, options in USUAL.items()],
    [("lite0", "ppm"), ("vit", "ppm")],
)
ON_NECKS = cases(STANDING, [*(("resnet", n) for n in OTHERS), ("patches", "alignseg"), ("patches", "fpn")])


@functools.cache
def network(backbone):
    torch.manual_seed(0)
    return BACKBONES[backbone]()


def build(name, options, backbone, neck, bf16=False, **of_neck):
    net = copy.deepcopy(network(backbone))
    torch.manual_seed(0)
    settings = {"channels": 16, **of_neck}
    made = None if neck == "none" else make_neck(neck, net.channels, settings, net.strides)
    classifier = nn.Conv2d(made.channels, 6, 1) if made else None
    return build_model(name, options, net, made, bf16, classifier).eval()


def episodes(backbone, batch=2, shots=1, fill=None, size=None):
    """A batch of episodes of random images, and the seeds of it."""
    torch.manual_seed(1)
    height, width = size or SIZES[backbone]
    images = 255 * torch.rand(batch, shots + 1, 3, height, width)
    masks = (torch.rand(batch, shots, height, width) > 0.6).long()
    masks[..., :4] = 255
    if fill is not None:
        masks[:] = fill
    query = (torch.rand(batch, height, width) > 0.5).long()
    return Episode(images[:, 0], query, images[:, 1:], masks, torch.ones(batch)), list(range(batch))


def one(episode, i):
    own = slice(i, i + 1)
    return Episode(
        episode.query_image[own], episode.query_mask[own], episode.support_images[own],
        episode.support_masks[own], episode.class_id[own],
    )  # fmt: skip


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES)
def test_logits_are_finite_whatever_the_supports_hold(name, options, backbone, neck):
    model = build(name, options, backbone, neck)
    for shots, fill in ((5, None), (2, 0), (1, 1), (1, 255)):
        with torch.no_grad():
            out = model.output(*episodes(backbone, 2, shots, fill))
        assert out.logits.shape[:2] == (2, 2) and out.logits.isfinite().all(), (shots, fill)
        assert all(note.shape == (2,) for note in out.notes.values())


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES + ON_NECKS + ON_NETWORKS)
def test_a_batch_equals_its_episodes_one_by_one(name, options, backbone, neck):
    model = build(name, options, backbone, neck)
    episode, seeds = episodes(backbone, 3, 2)
    with torch.no_grad():
        together = model.output(episode, seeds).logits
        for i in range(3):
            alone = model.output(one(episode, i), seeds[i : i + 1]).logits
            assert torch.allclose(alone, together[i : i + 1], atol=1e-4)


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES + ON_NECKS + ON_NETWORKS)
@pytest.mark.parametrize("bf16", [False, True])
def test_only_the_head_learns_and_nothing_frozen_moves(name, options, backbone, neck, bf16):
    model = build(name, options, backbone, neck, bf16).train()
    assert model.head.training and not any(m.training for part in model.frozen for m in part.modules())
    frozen = checksum(nn.ModuleList(model.frozen))
    if not model.head.learns:
        return
    episode, seeds = episodes(backbone)
    out = model.output(episode, seeds, training=True)
    loss = segmentation_loss(out.logits, episode.query_mask, model.head.balanced_loss, model.corners)
    loss = loss + sum(out.losses.values())
    loss.backward()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    optimizer.step()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    assert all(p.grad is None for part in model.frozen for p in part.parameters())
    assert checksum(nn.ModuleList(model.frozen)) == frozen


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES + ON_NECKS + ON_NETWORKS + DEFAULTS)
def test_model_segments_at_image_size_and_explains_itself(name, options, backbone, neck):
    model = build(name, options, backbone, neck)
    episode, seeds = episodes(backbone, 2, 3)
    with torch.no_grad():
        seen = episode.query_mask if model.head.sees_query_mask else None
        logits = model(episode.query_image, episode.support_images, episode.support_masks, query_mask=seen)
        assert logits.shape == (2, 2, *SIZES[backbone])
        panels = model.head.explain(model.encoded(episode, seeds))
        moved = model.explain_neck(episode.query_image)
    assert panels or name not in HEADS
    assert bool(moved) == ("neck" in model.head.levels and neck in ALIGNED)
    for panel in moved:
        assert panel.values.dim() == 4 and panel.values.shape[::3] == (2, 2) and panel.over == "query"
    for panel in panels:
        assert panel.values.shape[:-2] == ((2, 3) if panel.over == "support" else (2,))
        if panel.values.is_floating_point():
            assert panel.values.min() >= 0 and panel.values.max() <= 1


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES)
def test_sizes_off_the_grid_and_a_query_of_255_alone(name, options, backbone, neck):
    """Where cells and pixels do not share their grid, support masks become soft on the feature cells."""
    model = build(name, options, backbone, neck).train()
    episode, seeds = episodes(backbone, 2, 2, fill=0, size=ODD[backbone])
    episode.support_masks[..., 9:31, 17:50] = 1
    episode.query_mask[:] = 255
    out = model.output(episode, seeds, training=True)
    loss = segmentation_loss(out.logits, episode.query_mask, model.head.balanced_loss, model.corners)
    loss = loss + sum(out.losses.values())
    assert out.logits.isfinite().all() and torch.as_tensor(loss).isfinite()


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES)
def test_a_head_is_made_again_from_what_it_says_of_itself(name, options, backbone, neck):
    """Checkpoints keep a head's options as plain values."""
    kept = KIND.options(name, options)
    assert KIND.options(name, kept) == kept
    json.dumps(kept)


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), CASES)
def test_what_is_random_comes_from_the_seeds_alone(name, options, backbone, neck):
    model = build(name, options, backbone, neck)
    episode, _ = episodes(backbone)
    with torch.no_grad(), unmoved():
        a, b = (model.output(episode, [7, 8]).logits for _ in range(2))
    assert torch.equal(a, b)
    with torch.no_grad():
        swapped = model.output(one(episode, 1), [8]).logits
    assert torch.allclose(swapped, b[1:], atol=1e-4)  # an episode's own seed, wherever it stands in a batch


@pytest.mark.parametrize(("name", "options", "backbone", "neck"), LAZY + ON_NECKS)
def test_what_is_lazy_draws_nothing(name, options, backbone, neck):
    """The network is folded when it is first needed, and again when it changed: in a test, for a picture, or
    in the middle of training, where a number that is drawn for it would shift the dropout's."""
    model = build(name, options, backbone, neck)
    episode, seeds = episodes(backbone)
    with torch.no_grad(), unmoved():
        for look in (
            lambda: model.extract(episode.query_image),
            lambda: model.explain_neck(episode.query_image),
            lambda: model.head.explain(model.encoded(episode, seeds)),
            lambda: model(
                episode.query_image,
                episode.support_images,
                episode.support_masks,
                query_mask=episode.query_mask,
            ),
        ):
            for part in model.frozen:
                next(part.parameters()).mul_(1)  # changed, as far as anyone can see
            look()
    if not model.head.learns:
        return
    model.frozen[0].load_state_dict(model.frozen[0].state_dict())
    left = []
    for _ in range(2):  # with the network folded on the way, and without
        with seeded(5):
            model.train().output(episode, seeds, training=True)
            left.append(torch.get_rng_state())
    assert torch.equal(*left)


@pytest.mark.parametrize("name", ["cwt", "prototype", "asgnet"])
def test_a_head_follows_the_corners_of_its_network(name):
    """Cells that are the middles of patches give other answers than cells whose corners lie on corners."""
    model = build(name, dict(STANDING)[name], "patches", "fpn")
    episode, seeds = episodes("patches", 1, 1, fill=0)
    episode.support_masks[..., 13:35, 10:51] = 1
    encoded = model.encoded(episode, seeds)
    assert encoded.corners is False
    with torch.no_grad():
        wanted = model.head(encoded).logits
        encoded.corners = True
        assert not torch.allclose(model.head(encoded).logits, wanted, atol=1e-6)


def test_asgnet_on_a_finer_map_than_published():
    """Seeds are placed on the map's own grid, whatever its stride."""
    model = build("asgnet", {**SMALL, "features": "neck"}, "resnet", "sfnet", stride=4)
    with torch.no_grad():
        out = model.output(*episodes("resnet"))
    assert out.logits.isfinite().all() and out.logits.shape[-2:] == (13, 17)


def test_a_size_that_a_network_cannot_take_is_refused():
    with pytest.raises(UserError, match=r"data.size=50: Patches takes multiples of 4 .*nearest: 48, 52"):
        check_size(Patches(), 50)
