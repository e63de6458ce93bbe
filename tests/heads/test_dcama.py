"""DCAMA's parts against the authors' numbers, and its fast ways against plain ones."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fss.errors import UserError
from fss.heads import Encoded, build_head
from fss.heads.aggregation import Projections, _Dropout, aggregated, positions
from fss.heads.cells import conv_of_resized
from fss.heads.dcama import DCAMA
from fss.ops import resize
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed)))


def bits(packed):
    """Masks packed along their width, a multiple of 8 -> 0 and 1."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1)).long()


def state_of(numbers):
    return seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]


def test_the_code_of_positions_is_the_published_one(fixture_numbers):
    """Also in the ten-thousandth row, where float32 shows which way it was computed."""
    numbers = fixture_numbers("dcama_attention")
    rows = torch.from_numpy(numbers["position_rows"])
    code = positions(10_000, int(numbers["channels"]))
    wanted = torch.from_numpy(numbers["positions_first_and_last"])
    assert code.dtype == torch.float32 and float((code[rows] - wanted).abs().max()) < 2e-6
    assert positions(5, 7).shape == (5, 7)  # odd widths end on a sine


def attention(numbers):
    """The projections of a fixture in float64, its values, and maps of one row of cells."""
    of = Projections(int(numbers["channels"]), 8, 0.5).eval()
    of.load_state_dict(state_of(numbers))
    maps = (torch.from_numpy(numbers[k]).mT[:, :, None] for k in ("query", "support"))  # (B,C,1,N)
    return of.double(), torch.from_numpy(numbers["value"]).double(), *(x.double() for x in maps)


def test_attention_gives_the_published_numbers(fixture_numbers):
    numbers = fixture_numbers("dcama_attention")
    of, values, query, support = attention(numbers)
    queries, keys = of.queries(query).flatten(2, 3), of.keys(support).flatten(2, 3)  # (B,J,N,d)
    weights = (queries[:, :, :1] @ keys.mT).softmax(3)[:, :, 0].detach()
    assert relative_error(weights, numbers["attention_first_query"]) < 1e-5
    out = torch.stack([aggregated(*x) for x in zip(queries, keys, values, strict=True)])[..., None]
    assert relative_error(out.detach(), numbers["output"]) < 1e-5
    (out * randn(numbers["output_weight_seed"], *out.shape)).sum().backward()
    parameters = dict(of.named_parameters())
    norms = [float(parameters[k].grad.norm()) for k in json.loads(str(numbers["gradient_names"]))]
    assert relative_error(norms[:3], numbers["gradient_norms"][:3]) < 1e-4
    assert norms[3] < 1e-12  # the keys' bias adds the same to all scores of a query
    assert relative_error(of.linears[0].bias.grad, numbers["gradient_query_bias"]) < 1e-4


def small_head(numbers):
    """The head of a fixture, its four stages' maps by level, and an episode of them; all float64."""
    stages = zip(range(1, 5), numbers["channels"], numbers["layers"], strict=True)
    levels = {f"stage{s}.{i}:sum": (s, int(c)) for s, c, n in stages for i in range(int(n))}
    strides = {level: 4 * 2 ** (stage - 1) for level, (stage, _) in levels.items()}
    head = DCAMA({k: c for k, (_, c) in levels.items()}, strides)
    head.load_state_dict(state_of(numbers))
    head, side, b = head.double().eval(), int(numbers["stage1_side"]), int(numbers["batch"])

    def maps(seed):
        every = {
            level: randn(int(seed) + i, b, c, side >> (stage - 1), side >> (stage - 1)).double()
            for i, (level, (stage, c)) in enumerate(levels.items())
        }
        return {level: every[level] for level in head.levels}

    supports = [head.encode_support(maps(seed)) for seed in numbers["support_seeds"]]
    support = {k: torch.stack([x[k] for x in supports], 1) for k in supports[0]}
    masks = bits(numbers["support_masks"])
    return head, Encoded(head.encode(maps(numbers["query_seed"])), support, masks, list(range(b)))


@pytest.mark.parametrize("shots", [1, 5])
def test_the_head_gives_the_published_numbers(shots, fixture_numbers):
    numbers = fixture_numbers(f"dcama_head_{shots}shot")
    head, e = small_head(numbers)
    found = {}
    for name in ("conv1", "conv2", "conv5", "mixer1"):
        keep = lambda module, inputs, out, name=name: found.update({name: out.detach()})  # noqa: E731
        getattr(head, name)[-1].register_forward_hook(keep)
    logits = head(e).logits
    four, three, two = head._guesses(e)
    for i, guess in enumerate(torch.unbind(two, 1) + torch.unbind(three, 1) + torch.unbind(four, 1)):
        assert relative_error(guess.detach(), numbers[f"coarse_{i:02d}"]) < 1e-5
    for key, value in {**found, "logits": logits.detach()}.items():
        name = next(k for k in numbers if k.partition("_every")[0] == key)
        every = int(name.partition("_every")[2] or 1)
        assert relative_error(value[..., ::every, ::every], numbers[name]) < 1e-5, key
    if shots > 1:
        return
    loss = F.cross_entropy(logits, bits(numbers["target"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(numbers["loss"]), rel=1e-6)
    parameters, norms, wanted = dict(head.named_parameters()), [], []
    for name, norm in zip(json.loads(str(numbers["gradient_names"])), numbers["gradient_norms"], strict=True):
        if not name.endswith("linears.1.bias"):  # rounding noise
            norms.append(float(parameters[name].grad.norm()))
            wanted.append(norm)
    assert len(norms) == len(parameters) - 3 and relative_error(norms, wanted) < 1e-4


def plainly(query, keys, values):
    return ((query @ keys.mT).softmax(2) @ values).mean(0)


def attended():
    """Queries, keys (with gradients) and values of 2 heads, 11 and 23 cells."""
    query, keys = (randn(s, 2, n, 3).double().requires_grad_() for s, n in ((0, 11), (1, 23)))
    return query, keys, torch.rand(23, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("held", [1, 100, 2**20])
def test_attention_in_parts_equals_the_whole(held, monkeypatch):
    monkeypatch.setattr("fss.heads.aggregation._ON_CPU", held)
    query, keys, values = attended()
    weight = randn(3, 11).double()
    gradients = [
        torch.autograd.grad((way(query, keys, values) * weight).sum(), [query, keys])
        for way in (aggregated, plainly)
    ]
    for ours, plain in zip(*gradients, strict=True):
        assert torch.allclose(ours, plain)
    with torch.no_grad():
        assert torch.allclose(aggregated(query, keys, values), plainly(query, keys, values))


def test_dropped_weights_have_the_gradient_of_what_was_computed(monkeypatch):
    monkeypatch.setattr("fss.heads.aggregation._ON_CPU", 100)  # four cells at a time
    query, keys, values = attended()
    drop = _Dropout(0.5, 4, torch.device("cpu"))
    kept = torch.stack([torch.cat([drop.mask(torch.empty(n, 23)) for n in (4, 4, 3)]) for _ in range(2)])
    plain = (((query @ keys.mT).softmax(2) * kept * 2) @ values).mean(0)
    ours = aggregated(query, keys, values, 0.5, seed=4)
    assert torch.allclose(ours, plain)
    weight = randn(3, 11).double()
    gradients = [torch.autograd.grad((x * weight).sum(), [query, keys]) for x in (ours, plain)]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b)
    with torch.no_grad():
        assert torch.equal(aggregated(query, keys, values, 0.5, seed=4), ours)
        assert not torch.allclose(aggregated(query, keys, values, 0.5, seed=5), ours)
        assert torch.equal(aggregated(query, keys, values, 0.0, seed=4), aggregated(query, keys, values))


@pytest.mark.parametrize(("share", "factor"), [(0.5, 2.0), (0.1, 256 / 230), (0.999, 256.0), (0.0, 1.0)])
def test_dropout_drops_its_share_and_keeps_the_mean(share, factor):
    drop, weights = _Dropout(share, 1, torch.device("cpu")), torch.ones(3, 50, 1001)
    assert drop.factor == pytest.approx(factor)
    kept = drop.mask(weights)
    if share == 0:
        assert kept is None
        return
    assert kept.shape == weights.shape
    assert float(kept.double().mean() * drop.factor) == pytest.approx(1, abs=0.02 if share < 0.9 else 0.2)
    for axis in range(3):  # no stripes
        means = kept.double().mean([i for i in range(3) if i != axis])
        assert float(means.std()) < 0.02 + 0.2 * (axis == 2) * (share < 0.9)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("size", [(10, 14), (13, 9), (5, 7), (3, 20), (2, 3)])
def test_a_convolution_before_the_resize_equals_it_behind(size, corners):
    x, weight = randn(0, 2, 4, 5, 7).double(), randn(1, 6, 4, 3, 3).double()
    wanted = F.conv2d(resize(x, size, corners), weight, padding=1)
    assert torch.allclose(conv_of_resized(weight, x, size, corners), wanted)


CHANNELS = {"stage1": 8, "stage2": 12, "stage3": 16, "stage4": 16}


def episode(head, shots=2, seed=0, batch=1, sizes=((9, 13), (5, 7), (3, 4), (2, 2))):
    """An episode of maps that are not square, each stage of its own size."""
    maps = lambda s: {  # noqa: E731
        k: randn(s + i, batch, c, *sizes[i]) for i, (k, c) in enumerate(CHANNELS.items())
    }
    supports = [head.encode_support(maps(10 * (k + 1) + seed)) for k in range(shots)]
    masks = (torch.rand(batch, shots, 33, 49, generator=torch.Generator().manual_seed(seed)) > 0.6).long()
    support = {k: torch.stack([x[k] for x in supports], 1) for k in supports[0]}
    return Encoded(head.encode(maps(seed)), support, masks, [seed + i for i in range(batch)])


def head_of(**options):
    torch.manual_seed(0)
    return build_head("dcama", {"heads": 4, **options}, CHANNELS, {"stage1": 4, "stage2": 8, "stage3": 16})


@torch.no_grad()
def test_supports_are_more_keys_in_any_order():
    head = head_of().eval()
    e = episode(head, shots=3)
    turned = Encoded(
        e.query, {k: x[:, [2, 0, 1]] for k, x in e.support.items()}, e.support_masks[:, [2, 0, 1]], [0]
    )
    twice = Encoded(e.query, {k: x[:, [0, 0]] for k, x in e.support.items()}, e.support_masks[:, [0, 0]], [0])
    one = Encoded(e.query, {k: x[:, :1] for k, x in e.support.items()}, e.support_masks[:, :1], [0])
    assert torch.allclose(head(turned).logits, head(e).logits, atol=1e-5)
    assert torch.allclose(head(twice).logits, head(one).logits, atol=1e-5)
    assert not torch.allclose(head(one).logits, head(e).logits, atol=1e-3)
    assert head(e).logits.shape == (1, 2, 33, 49)


@torch.no_grad()
def test_of_several_supports_maps_the_largest_values_or_the_mean_join_the_decoder():
    largest, mean = head_of().eval(), head_of(shots="mean").eval()
    e = episode(largest, shots=3)
    maps = {k: x for k, x in e.support.items() if k.endswith(" map")}
    assert len(maps) == 2
    for head, over in (
        (largest, lambda x: x.amax(1, keepdim=True)),
        (mean, lambda x: x.mean(1, keepdim=True)),
    ):
        same = {k: over(x).expand_as(x) if k in maps else x for k, x in e.support.items()}
        replaced = Encoded(e.query, same, e.support_masks, [0])
        assert torch.allclose(head(replaced).logits, head(e).logits, atol=1e-5)
    assert not torch.allclose(mean(e).logits, largest(e).logits, atol=1e-3)


@torch.no_grad()
def test_a_mask_of_one_value_is_guessed_as_that():
    head = head_of().eval()
    for value in (0, 1):
        e = episode(head)
        e.support_masks[:] = value
        assert all(torch.allclose(x, torch.full_like(x, value)) for x in head._guesses(e))
        assert head(e).notes["empty_support"].tolist() == [value == 0]


def test_what_is_dropped_follows_each_episodes_seed():
    head = head_of().train()
    head.requires_grad_(False)
    for of in head.DCAMA_blocks:
        of.dropout.p = 0.0  # draws from the global generator, as other heads' layers
    e = episode(head, batch=2)
    both, alone = head(e).logits, head(e.part(1, 2)).logits
    assert torch.allclose(both[1:], alone, atol=1e-5)
    e.seeds = [0, 7]
    assert not torch.allclose(head(e).logits[1:], alone, atol=1e-3)


def test_queries_and_keys_begin_as_one_projection():
    for of in head_of().DCAMA_blocks:
        assert torch.equal(of.linears[0].weight, of.linears[1].weight)
        assert torch.equal(of.linears[0].bias, of.linears[1].bias)
        assert of.linears[0].weight is not of.linears[1].weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 8}, r"heads=8; allowed: 1 or more that divide the widths of levels, \[16, 16, 12\]"),
        ({"heads": 0}, "heads=0; allowed"),
        ({"dropout": 1}, "dropout=1.0; allowed: 0 to below 1"),
        ({"levels": [["stage4"], ["stage3"]]}, "levels=.*allowed: three lists"),
        ({"levels": [["stage4"], ["stage3"], ["stage2", "stage3"]]}, "each list of one stride and width"),
        ({"levels": [["stage4"], ["stage3"], []]}, "allowed: three lists"),
        ({"fine": "stage0"}, "it needs stage0, and this network has stage1"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        head_of(**options)


@torch.no_grad()
def test_panels_are_the_guesses_of_each_stage_and_their_mean():
    head = head_of().eval()
    panels = head.explain(episode(head))
    assert [p.title for p in panels] == ["guess, stage 4", "guess, stage 3", "guess, stage 2", "mean guess"]
    assert [tuple(p.values.shape) for p in panels] == [(1, 2, 2), (1, 3, 4), (1, 5, 7), (1, 5, 7)]
    sizes = [resize(p.values[:, None], (5, 7))[:, 0] for p in panels[:3]]
    assert torch.allclose(torch.stack(sizes).mean(0), panels[3].values)
