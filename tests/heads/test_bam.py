"""BAM's parts against the authors' numbers, and by hand."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.exchange.convert import _BAM, _as_cwt, _renamed
from fss.heads import Encoded, build_head
from fss.heads.bam import BAM, support_vector
from fss.heads.ensemble import base_map
from fss.necks.ppm import PyramidPooling
from fss.ops import resize, segmentation_loss
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

CHANNELS = {"stage2": 512, "stage3": 1024, "stage4": 2048, "base": 16}
SMALL = {"stage1": 5, "stage2": 6, "stage3": 10, "stage4": 4, "base": 3}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


def part(named, name):
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in named.items() if k.startswith(start)}


def head_and_episodes(numbers):
    """The head with a fixture's weights, and its episodes, whose base logits are of the fixture's network."""
    b, k, n = (int(numbers[name]) for name in ("batch", "shots", "cells"))
    state = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]
    named = _renamed(_as_cwt({k.removeprefix("module."): v for k, v in state.items()}), _BAM)
    head = BAM(CHANNELS, train_shots=k).eval()
    head.load_state_dict(part(named, "head"))
    neck = PyramidPooling({"stage4": 2048}, 512, classifier_bias=True).eval()
    neck.load_state_dict(part(named, "neck"))
    classifier = nn.Conv2d(512, 16, 1)
    classifier.load_state_dict(part(named, "classifier"))
    seed, levels = int(numbers["feature_seed"]), ("stage2", "stage3", "stage4")
    query = {x: drawn(seed + i, b, CHANNELS[x], n, n) for i, x in enumerate(levels)}
    support = {x: drawn(seed + i, b, k, CHANNELS[x], n, n).flatten(0, 1) for i, x in enumerate(levels, 3)}
    with torch.no_grad():
        query["base"] = classifier(neck.decode(query).map)
    theirs = {name: x.unflatten(0, (b, k)) for name, x in head.encode_support(support).items()}
    assert theirs.keys() == {"reduced", "deep", "gram"}
    masks = torch.from_numpy(numbers["support_masks"])
    return head, Encoded(head.encode(query), theirs, masks, range(b))


@torch.no_grad()
@pytest.mark.parametrize("shots", [1, 5])
def test_the_head_gives_the_published_numbers(fixture_numbers, shots):
    numbers = fixture_numbers(f"bam_head_{shots}shot")
    head, e = head_and_episodes(numbers)
    merged = []
    head.meta.ASPP_meta.register_forward_pre_hook(lambda module, inputs: merged.extend(inputs))
    out, psi = head(e), head._psi(e)
    weights = head.shots(psi)
    meta = head._meta(e, weights)
    for found, name in (
        (psi, "distance_per_shot"),
        (weights, "shot_weights"),
        ((weights * psi).sum(1), "adjustment"),
        (head._prior(e, weights), "prior"),
        (support_vector(e, weights), "prototype"),
        (merged[0][:, ::16], "merged_every_16th_channel"),
        (meta, "meta_logits"),
        (e.query["base"], "base_logits"),
        (base_map(e, meta), "base_probability"),
        (out.logits, "final"),
    ):
        wanted = torch.from_numpy(numbers[name])
        assert found.shape == wanted.shape and relative_error(found, wanted) < 1e-4, name
    assert not out.losses and not any(note.any() for note in out.notes.values())


def test_losses_and_gradients_are_the_published_ones(fixture_numbers):
    numbers = fixture_numbers("bam_losses_1shot")
    head, e = head_and_episodes(numbers)
    e.query_mask = torch.from_numpy(numbers["query_mask"])
    e.base_class = torch.from_numpy(numbers["class_index"])
    out = head(e)
    found = base_map(e, out.logits.detach())
    assert relative_error(found, numbers["base_probability"]) < 1e-4
    final = segmentation_loss(out.logits, e.query_mask, head.balanced_loss)
    assert final.item() == pytest.approx(float(numbers["loss_final"]), rel=1e-4)
    assert out.losses.keys() == {"meta"}
    assert out.losses["meta"].item() == pytest.approx(float(numbers["loss_meta"]), rel=1e-4)
    labels = torch.from_numpy(numbers["query_base_labels"]).long()
    base = F.cross_entropy(resize(e.query["base"], labels.shape[-2:]), labels, ignore_index=255)
    assert base.item() == pytest.approx(float(numbers["loss_base"]), rel=1e-4)
    pixels = resize(out.logits.detach(), labels.shape[-2:]).argmax(1).sum((1, 2))
    assert (pixels - torch.from_numpy(numbers["foreground_pixels"])).abs().max() <= 2
    (final + out.losses["meta"]).backward()
    named = dict(head.named_parameters())
    for theirs, norm in zip(
        json.loads(str(numbers["gradient_names"])), numbers["gradient_norms"], strict=True
    ):
        name = next(iter(_renamed({theirs: None}, _BAM))).removeprefix("head.")
        merges = "merge.weight" in theirs and "init" not in theirs
        assert float(named.pop(name).grad.norm()) == pytest.approx(norm, rel=1e-3 if merges else 1e-4), theirs
    assert not named
    for name in ("gram_merge", "cls_merge"):
        gradient = head.ensemble.get_parameter(f"{name}.weight").grad
        assert relative_error(gradient, numbers[f"gradient_{name}"]) < 1e-3
    gradient = head.meta.get_parameter("cls_meta.3.weight").grad
    assert relative_error(gradient, numbers["gradient_cls_meta_3"]) < 1e-4


def small(batch=2, shots=1, size=(7, 9), **options):
    """A small head in evaluation mode, and episodes of random maps."""
    torch.manual_seed(0)
    head = build_head("bam", {"width": 8, **options}, SMALL, train_shots=options.pop("train_shots", 1)).eval()
    maps = lambda n: {k: torch.rand(n, c, *size) for k, c in SMALL.items()}  # noqa: E731
    query = head.encode({k: x for k, x in maps(batch).items() if k in head.levels})
    theirs = {k: x for k, x in maps(batch * shots).items() if k in head.support_levels}
    support = {k: x.unflatten(0, (batch, shots)) for k, x in head.encode_support(theirs).items()}
    masks = torch.zeros(batch, shots, 49, 65, dtype=torch.int64)
    masks[..., 8:30, 8:40] = 1
    return head, Encoded(query, support, masks, range(batch))


def test_supports_go_without_the_base_classes_logits():
    head, e = small()
    assert head.levels == ("stage3", "stage2", "stage4", "base")
    assert head.support_levels == ("stage3", "stage2", "stage4")
    assert "base" in e.query and "base" not in e.support


@torch.no_grad()
def test_without_the_ensemble_the_meta_learner_answers_alone_and_needs_no_base_network():
    head, e = small(ensemble=False)
    whole, _ = small()
    whole.load_state_dict(head.state_dict(), strict=False)
    assert head.levels == ("stage3", "stage2", "stage4")
    assert e.query.keys() == e.support.keys() == {"reduced", "deep"}
    logits = head(e).logits
    wanted = torch.full((2, 1), 1.0)
    assert torch.equal(logits, head._meta(e, wanted)) and torch.equal(logits, whole._meta(e, wanted))
    e.query_mask = torch.zeros(2, 49, 65, dtype=torch.int64)
    assert not head(e).losses  # the trainer's cross-entropy is its own
    assert [p.title for p in head.explain(e)] == ["prior", "meta learner"]


@torch.no_grad()
def test_shots_are_weighted_by_psi_where_their_number_is_that_of_training():
    torch.manual_seed(0)
    heads = [build_head("bam", {"width": 8, "ensemble": False}, SMALL, train_shots=k).eval() for k in (3, 1)]
    heads[1].load_state_dict({k: v for k, v in heads[0].state_dict().items() if "kshot_rw" not in k})
    _, e = small(shots=3)
    logits = [head(e) for head in heads]
    assert [out.notes["equal_weights"].tolist() for out in logits] == [[False] * 2, [True] * 2]
    assert not torch.allclose(logits[0].logits, logits[1].logits, atol=1e-5)
    heads[0].shots.kshot_rw[2].weight.zero_()
    heads[0].shots.kshot_rw[2].bias.zero_()  # equal weights
    assert torch.allclose(heads[0](e).logits, logits[1].logits, atol=1e-6)


@torch.no_grad()
def test_an_episodes_own_class_is_no_base_class_in_training_alone():
    e = small()[1]
    meta = torch.zeros(2, 2, 7, 9)
    e.base_class = torch.tensor([1, -1])
    everyone = base_map(e, meta)
    e.query_mask = torch.zeros(2, 49, 65, dtype=torch.int64)
    training = base_map(e, meta)
    likely = e.query["base"].softmax(1)
    assert torch.allclose(everyone, 1 - likely[:, :1], atol=1e-6)
    assert torch.allclose(training[0], likely[:1, 1], atol=1e-6) and torch.equal(training[1], everyone[1])


@torch.no_grad()
def test_base_logits_of_another_grid_come_to_the_meta_learners_cells():
    head, e = small()
    e.query["base"] = torch.rand(2, 3, 13, 17)
    for e.corners in (True, False):
        wanted = 1 - resize(e.query["base"], (7, 9), e.corners).softmax(1)[:, :1]
        assert torch.allclose(base_map(e, torch.zeros(2, 2, 7, 9)), wanted, atol=1e-6)
    assert head(e).logits.shape == (2, 2, 7, 9)


@torch.no_grad()
def test_what_is_seen_is_explained():
    head, e = small(shots=2)
    e.query["base"][0, 0] += 9  # background wherever one looks
    panels = {p.title: p for p in head.explain(e)}
    assert list(panels) == ["prior", "meta learner", "base learner", "any base class"]
    assert panels["prior"].captions == ["50% 50%"] * 2
    assert (panels["base learner"].values[0] == -1).all() and panels["base learner"].values[1].max() >= 0
    assert panels["any base class"].captions[0].startswith("psi 0.")
    assert panels["any base class"].values[0].max() < 0.01


def test_a_bad_option_is_told():
    with pytest.raises(
        ValueError, match="cut=stage4 has no part in stage3, stage2, base; allowed there: nothi"
    ):
        BAM(SMALL, deep="stage3")
    with pytest.raises(ValueError, match="it needs base"):
        BAM({k: c for k, c in SMALL.items() if k != "base"})
