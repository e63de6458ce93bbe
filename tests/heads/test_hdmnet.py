"""HDMNet's parts against the authors' numbers, against plain code, and by hand."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.exchange.convert import hdmnet_names
from fss.heads import Encoded
from fss.heads.cells import nearest
from fss.heads.dense_correlation import FixedNorm, HierarchicalMatching, Squeezed, divergences, mask_shares
from fss.heads.ensemble import adjustments, base_map
from fss.heads.hdmnet import HDMNet
from fss.heads.mix_transformer import Attention, Foreground, SelfAttention
from fss.heads.prior import likenesses
from fss.ops import resize, segmentation_loss
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

CHANNELS = {"stage2": 512, "stage3": 1024, "stage4": 2048, "neck:sum": 512, "base": 16}
SMALL = {"stage2": 12, "stage3": 16, "stage4": 16, "neck:sum": 16, "base": 5}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state_of(numbers, prefix=""):
    """A fixture's parameters under our names, those of the head."""
    state = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]
    named = hdmnet_names({prefix + name.removeprefix("module."): x for name, x in state.items()})
    return {name.removeprefix("head."): x for name, x in named.items() if name.startswith("head.")}, state


def test_both_kinds_of_attention_are_the_published_ones(fixture_numbers):
    numbers = {k: torch.from_numpy(v) for k, v in fixture_numbers("hdm_attention").items() if k != "heads"}
    layer = Attention(16, 2)
    layer.load_state_dict({k.removeprefix("state."): v for k, v in numbers.items() if k.startswith("state.")})
    query, source, inside = numbers["query"], numbers["source"], numbers["mask"] == 1
    assert not inside.any(1).all()  # of one sample nothing is matched
    every = [Foreground(x[m], torch.ones(int(m.sum()))) for x, m in zip(source, inside, strict=True)]
    whole = [Foreground(x, m.float()) for x, m in zip(source, inside, strict=True)]  # as exported graphs do
    with torch.no_grad():
        for supports in (every, whole):
            matched, correlation = layer.match(query, supports)
            assert relative_error(matched, numbers["matched"]) < 1e-4
            assert relative_error(correlation, numbers["correlation"]) < 1e-4
        assert relative_error(layer(query, source), numbers["self_attended"]) < 1e-4


def test_more_support_cells_than_are_taken_at_once(monkeypatch):
    torch.manual_seed(0)
    layer = Attention(8, 2)
    query, supports = torch.randn(1, 20, 8), [Foreground(torch.randn(30, 8), torch.ones(30))]
    wanted = layer.match(query, supports)
    monkeypatch.setattr("fss.heads.mix_transformer._AT_ONCE", 7)
    for ours, theirs in zip(layer.match(query, supports), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_similarity_is_the_published_one(fixture_numbers):
    numbers = {k: torch.from_numpy(v) for k, v in fixture_numbers("hdm_similarity").items()}
    query, support, masks = numbers["query"], numbers["support"], numbers["support_mask"]
    inside = nearest(masks, query.shape[-2:]) == 1
    found = likenesses(query, support[:, None], inside[:, None])
    assert (found[-1] < 0).any() and inside[-1].all()
    assert relative_error(found, numbers["similarity"]) < 1e-4


@pytest.mark.parametrize("shots", [1, 5])
def test_the_transformer_is_the_published_one(fixture_numbers, shots):
    numbers = fixture_numbers(f"hdm_transformer_{shots}shot")
    n, seed, b = (int(numbers[name]) for name in ("cells", "feature_seed", "batch"))
    model = HierarchicalMatching().eval()
    state = state_of(numbers, "transformer.")[0]
    model.load_state_dict({name.removeprefix("transformer."): x for name, x in state.items()})
    masks = torch.from_numpy(numbers["support_masks"])
    with torch.no_grad():
        query = model.encode(drawn(seed, b, 64, n, n).relu())
        theirs = model.encode(drawn(seed + 1, b * shots, 64, n, n).relu())
        supports = [x.unflatten(0, (b, shots)) for x in theirs]
        logits, correlations = model(query, supports, masks, torch.from_numpy(numbers["similarity"]))
    for i, x in enumerate(query):
        wanted = numbers[f"query_level{i}_every_4th_channel"]
        assert relative_error(x.flatten(1, 2)[..., ::4], wanted) < 1e-4
    for i, x in enumerate(reversed(correlations)):
        assert relative_error(x, numbers[f"correlation{i}"]) < 1e-4
    assert relative_error(logits, numbers["logits"]) < 1e-4


def test_the_distillation_is_the_published_one(fixture_numbers):
    numbers = {k: torch.from_numpy(v) for k, v in fixture_numbers("hdm_distillation").items()}
    correlations = [numbers[f"correlation{i}"] for i in (2, 1, 0)]
    masks = numbers["query_mask"]
    assert relative_error(divergences(correlations, masks), numbers["divergence"]) < 1e-4
    for i in range(len(masks)):
        alone = divergences([x[i : i + 1] for x in correlations], masks[i : i + 1])
        assert relative_error(alone, numbers["divergence_per_sample"][:, i]) < 1e-4
    assert relative_error(divergences(correlations, masks).mean(), numbers["loss"]) < 1e-4


def test_cells_with_most_foreground_share_evenly_and_without_any_all_do():
    """At sizes where a resize in float32 rounds, too."""
    masks = torch.zeros(3, 473, 473, dtype=torch.uint8)
    masks[1, 100:400, 50:300] = 1
    masks[2, 47, :] = 1  # one of the two rows of pixels that the second row of cells looks at
    masks[:, :, -20:] = 255
    found = mask_shares(masks, (15, 15)).view(3, 15, 15)
    assert torch.allclose(found.sum((1, 2)), torch.ones(3))
    assert torch.allclose(found[0], torch.full((15, 15), 1 / 225))
    assert found[1].count_nonzero() > 50 and found[1].unique().numel() == 2
    assert found[2].nonzero()[:, 0].unique().tolist() == [1] and found[2].count_nonzero() == 14


def head_and_episodes(numbers, training=False):
    """The head with a fixture's weights, and its episodes; base logits come from the map before its ReLU."""
    b, k, n, seed = (int(numbers[name]) for name in ("batch", "shots", "cells", "feature_seed"))
    head = HDMNet(CHANNELS, psi="published" if k > 1 else "mean", train_shots=k).train(training)
    state, whole = state_of(numbers)
    head.load_state_dict(state)
    for part in head.modules():
        if isinstance(part, nn.Dropout | nn.Dropout2d):
            part.p = 0.0
    levels = ("stage2", "stage3", "stage4", "neck:sum")
    maps = lambda first, *shape: {  # noqa: E731
        name: drawn(first + i, *shape, CHANNELS[name], n, n) for i, name in enumerate(levels)
    }
    query, support = maps(seed, b), maps(seed + 4, b, k)
    for each in (query, support):
        each.update({name: x.relu() for name, x in each.items() if name != "neck:sum"})
    weight, bias = (whole[f"base_learnear.2.{name}"] for name in ("weight", "bias"))
    query["base"] = F.conv2d(query["neck:sum"].relu(), weight, bias)
    masks = torch.from_numpy(numbers["support_masks"])
    flat = {name: x.flatten(0, 1) for name, x in support.items()}
    theirs = head.encode_support({**flat, "mask": masks.flatten(0, 1)})
    theirs = {name: x.unflatten(0, (b, k)) for name, x in theirs.items()}
    return head, Encoded(head.encode(query), theirs, masks, range(b))


@pytest.mark.parametrize("shots", [1, 5])
@torch.no_grad()
def test_the_head_gives_the_published_numbers(fixture_numbers, shots):
    numbers, seen = fixture_numbers(f"hdm_head_{shots}shot"), []
    head, e = head_and_episodes(numbers)
    head.transformer.down_sample_layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    similarity = head._similarity(e)
    assert relative_error(similarity, numbers["similarity"]) < 1e-4
    meta, correlations = head._meta(e, similarity)
    assert relative_error(seen[0][:, ::16], numbers["query_merged_every_16th_channel"]) < 1e-4
    for name, x in zip(("coarse", "middle", "fine"), reversed(correlations), strict=True):
        assert relative_error(x, numbers[f"correlation_{name}"]) < 1e-4
    assert relative_error(meta, numbers["meta_logits"]) < 1e-4
    assert relative_error(e.query["base"], numbers["base_logits"]) < 1e-4
    assert relative_error(base_map(e, meta), numbers["base_probability"]) < 1e-4
    psi = adjustments(e.query["gram"], e.support["gram"])
    assert relative_error(psi, numbers["distance_per_shot"]) < 1e-4
    assert relative_error(head.shots(psi), numbers["shot_weights"]) < 1e-4
    assert relative_error((head.shots(psi) * psi).sum(1), numbers["adjustment"]) < 1e-4
    assert relative_error(head(e).logits, numbers["final"]) < 1e-4


@pytest.mark.parametrize("shots", [1, 5])
@torch.no_grad()
def test_the_transformers_inputs_of_supports_are_the_published_ones(fixture_numbers, shots, monkeypatch):
    numbers, seen = fixture_numbers(f"hdm_head_{shots}shot"), []
    encode = HierarchicalMatching.encode
    monkeypatch.setattr(HierarchicalMatching, "encode", lambda own, x: seen.append(x) or encode(own, x))
    head_and_episodes(numbers)
    assert relative_error(seen[0][:, ::16], numbers["support_merged_every_16th_channel"]) < 1e-4


def test_losses_and_gradients_are_the_published_ones(fixture_numbers):
    numbers = fixture_numbers("hdm_losses_1shot")
    head, e = head_and_episodes(numbers, training=True)
    target, size = torch.from_numpy(numbers["query_mask"]), (int(numbers["size"]),) * 2
    e.query_mask, e.base_class = target, torch.from_numpy(numbers["class_index"])
    meta, correlations = head._meta(e, head._similarity(e))
    assert relative_error(base_map(e, meta).detach(), numbers["base_probability"]) < 1e-4
    each = divergences(correlations, target).detach()
    assert relative_error(each, numbers["distillation_per_level"]) < 1e-4
    out = head(e)
    found = {
        "final": segmentation_loss(out.logits, target, head.balanced_loss),
        "base": F.cross_entropy(
            resize(e.query["base"], size), torch.from_numpy(numbers["query_base_labels"]).long(),
            ignore_index=255,
        ),
        **out.losses,
    }  # fmt: skip
    for name, loss in found.items():
        assert float(loss) == pytest.approx(float(numbers[f"loss_{name}"]), rel=1e-4), name
    logits = resize(out.logits.detach(), size)
    assert logits.argmax(1).sum((1, 2)).tolist() == numbers["foreground_pixels"].tolist()
    (found["final"] + found["meta"] + found["distillation"]).backward()
    named = {f"head.{name}": p for name, p in head.named_parameters()}
    names = json.loads(str(numbers["gradient_names"]))
    ours = hdmnet_names({name: name for name in names})
    norms = dict(zip(names, numbers["gradient_norms"].tolist(), strict=True))
    assert ours.keys() == {name for name, p in named.items() if p.requires_grad}
    for our, theirs in ours.items():
        rel = 1e-3 if theirs in ("gram_merge.weight", "cls_merge.weight") else 1e-4
        assert float(named[our].grad.norm()) == pytest.approx(norms[theirs], rel=rel, abs=1e-8), theirs
    for which in ("gram_merge", "cls_merge"):
        gradient = getattr(head.ensemble, which).weight.grad
        assert relative_error(gradient, numbers[f"gradient_{which}"]) < 1e-3
    fine = head.transformer.match_layers[0][0].attn.attn.linear_q.weight.grad
    assert relative_error(fine, numbers["gradient_fine_q"]) < 1e-4


@pytest.mark.parametrize("end", [False, True])
def test_three_convolutions_in_one_are_what_they_are_one_by_one(end):
    """At the border too, where the second one sees zeros in place of the first one's bias."""
    torch.manual_seed(0)
    layers = Squeezed(8, 2 if end else 8, end)
    for norm in layers:
        if isinstance(norm, FixedNorm):
            for x, low in (
                (norm.weight, 0.5),
                (norm.bias, -1),
                (norm.running_mean, -1),
                (norm.running_var, 0.5),
            ):
                x.data.uniform_(low, low + 1)
    x = torch.randn(2, 8, 5, 7)
    plain = x
    for layer in layers:
        if isinstance(layer, FixedNorm):
            statistics = layer.running_mean, layer.running_var, layer.weight, layer.bias
            plain = F.batch_norm(plain, *statistics, eps=1e-5)
        else:
            plain = layer(plain)
    assert torch.allclose(layers(x), plain, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), list(layers.parameters())) for y in (layers(x), plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def test_norms_keep_their_statistics_in_training():
    torch.manual_seed(0)
    model = HierarchicalMatching(8).train()
    before = {name: x.clone() for name, x in model.named_buffers()}
    levels = model.encode(torch.rand(2, 8, 7, 9))
    masks = torch.ones(2, 1, 49, 65, dtype=torch.int64)
    model(levels, [x[:, None] for x in levels], masks, torch.rand(2, 2, 7, 9))
    assert before and all(torch.equal(x, before[name]) for name, x in model.named_buffers())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_a_map_smaller_than_a_key_is_filled_up():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2, 4)
    x = torch.randn(1, 3, 5, 8)
    assert torch.allclose(
        layer(x), _with_one_key(layer, F.pad(x, (0, 0, 0, 0, 0, 1))[:, :, :4], x), atol=1e-5
    )


def _with_one_key(layer, window, x):
    key = layer.norm(layer.sr(window.movedim(-1, 1)).movedim(1, -1)).flatten(1, 2)  # (1,1,C)
    value = layer.attn.linear_o(layer.attn.linear_v(key))  # all attend to the one key
    return value[:, None].expand_as(x)


def small_episodes(shots=1, empty=False, **options):
    torch.manual_seed(0)
    head = HDMNet(SMALL, width=16, embed=8, **options).eval()
    g = torch.Generator().manual_seed(1)
    maps = lambda: {k: torch.randn(2, c, 7, 7, generator=g) for k, c in SMALL.items()}  # noqa: E731
    masks = torch.zeros(2, shots, 49, 49, dtype=torch.int64)
    masks[0, :, 8:33, 8:41] = 1
    masks[1] = 0 if empty else masks[0]
    every = [head.encode_support({**maps(), "mask": masks[:, k]}) for k in range(shots)]
    support = {name: torch.stack([x[name] for x in every], 1) for name in every[0]}
    return head, Encoded(head.encode(maps()), support, masks, [0, 1])


def test_without_foreground_nothing_is_matched():
    head, e = small_episodes(empty=True)
    with torch.no_grad():
        out = head(e)
        similarity = head._similarity(e)
        _, correlations = head._meta(e, similarity)
    assert out.notes["empty_support"].tolist() == [False, True] and out.logits.isfinite().all()
    assert not similarity[1].any() and similarity[0].any()
    assert all(not x[1].any() and x[0].any() for x in correlations)


def test_what_the_head_keeps_of_a_support_does_not_grow_with_its_shots_maps():
    """A query meets the cells under the mask alone: what stands elsewhere on the levels is not looked at."""
    head, e = small_episodes(shots=2)
    with torch.no_grad():
        wanted = head(e).logits
        for i in range(3):
            level = e.support[f"level{i}"]
            outside = nearest(e.support_masks, level.shape[2:4]) != 1
            level[outside] = torch.nan
        assert torch.equal(head(e).logits, wanted)


def test_psi_of_several_supports_is_their_mean_or_weighted_by_what_nothing_trains():
    for psi, shots, told in (("mean", 2, None), ("published", 2, False), ("published", 3, True)):
        head, e = small_episodes(shots, psi=psi, train_shots=2)
        head.ensemble.gram_merge.weight.data[0, 1] = 2.0
        with torch.no_grad():
            each, out = adjustments(e.query["gram"], e.support["gram"]), head(e)
            weights = head.shots(each)
        alike = torch.full_like(each, 1 / shots)
        assert torch.allclose(weights, alike) == (psi == "mean" or told)
        assert ("equal_weights" in out.notes) == (psi == "published")
        assert told is None or out.notes["equal_weights"].tolist() == [told] * 2
        assert not any(p.requires_grad for p in head.shots.parameters())
    learning = {id(p) for p in head.parameters() if p.requires_grad}
    assert {id(p) for group in head.groups() for p in group["params"]} == learning


def test_the_transformer_learns_at_a_tenth_of_the_rate_of_the_rest():
    head, _ = small_episodes()
    slow, fast = head.groups()
    assert (slow["factor"], fast["factor"]) == (1.0, 10.0)
    assert {id(p) for p in slow["params"]} == {id(p) for p in head.transformer.parameters()}
    assert {id(head.ensemble.gram_merge.weight), id(head.down_supp[0].weight)} <= {
        id(p) for p in fast["params"]
    }


def test_the_meta_learner_alone_needs_no_base_network():
    channels = {name: c for name, c in SMALL.items() if name.startswith("stage")}
    head = HDMNet(channels, deep="stage4", width=16, embed=8, ensemble=False)
    assert (
        head.levels == ("stage3", "stage2", "stage4")
        and head.transformer.match_layers[0][1].conv.in_channels == 9
    )
    with pytest.raises(ValueError, match="it needs neck:sum, base, and this network has"):
        HDMNet(channels)


def test_panels_tell_similarities_correlations_and_what_both_learners_say():
    head, e = small_episodes(shots=2)
    with torch.no_grad():
        panels = head.explain(e)
    assert [p.title for p in panels] == [
        "similarity, neck:sum", "similarity, stage4", "correlation, 2 x 2 cells", "correlation, 4 x 4 cells",
        "correlation, 7 x 7 cells", "meta learner", "any base class",
    ]  # fmt: skip
    for panel in panels[2:5]:
        assert torch.equal(panel.values.flatten(1).amin(1), torch.zeros(2))
        assert torch.allclose(panel.values.flatten(1).amax(1), torch.ones(2))
