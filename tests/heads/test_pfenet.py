"""PFENet's parts against the authors' numbers, against plain code, and by hand."""

import json

import pytest
import torch

from fss.backbones.base import Backbone
from fss.backbones.resnet import ResNet
from fss.errors import UserError
from fss.exchange.convert import _PFENET, _renamed
from fss.heads import Encoded
from fss.heads.context import size_of
from fss.heads.pfenet import PFENet, support_vector
from fss.heads.prior import likeness, priors
from fss.model import build_model
from fss.ops import resize, segmentation_loss
from tests.conftest import relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint
from tests.heads.test_asgnet import Largest

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


def whole(query, support, mask):
    """Every cell of the query with every cell of the support, those outside the mask zero, in float64."""
    query, support = query.double(), support.double() * (mask > 0)
    lengths = support.norm(dim=0)[:, None] * query.norm(dim=0)
    return (support.T @ query / (lengths + 1e-7)).amax(0)


def cells(seed, channels, count, shift=0.0):
    return torch.randn(channels, count, generator=torch.Generator().manual_seed(seed)) - shift


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("covered", ["some", "softly", "all", "none"])
def test_cells_outside_a_mask_are_zero_vectors(monkeypatch, exported, covered):
    """Also where cosines are negative: then 0 is the largest, unless the mask is everything."""
    monkeypatch.setattr("fss.heads.prior.exporting", lambda: exported)
    query, support = cells(1, 8, 20, shift=1.0), cells(2, 8, 30, shift=-1.0)
    mask = {
        "some": torch.arange(30) % 3 == 0, "softly": torch.linspace(-0.5, 0.5, 30).clamp(min=0),
        "all": torch.full((30,), 0.3), "none": torch.zeros(30),
    }[covered].float()  # fmt: skip
    found = likeness(query, support, mask)
    assert torch.allclose(found.double(), whole(query, support, mask), atol=1e-6)
    assert bool((found < 0).any()) == (covered == "all") and bool((found == 0).all()) == (covered == "none")


def test_priors_run_from_0_to_1_over_the_query_of_each_support_and_are_0_without_foreground():
    torch.manual_seed(0)
    query, support = torch.rand(2, 8, 4, 6), torch.rand(2, 3, 8, 5, 3)
    masks = (torch.rand(2, 3, 5, 3) > 0.5).float()
    masks[1, 2] = 0
    found = priors(query, support, masks)
    assert found.shape == (2, 3, 4, 6) and not found[1, 2].any()
    flat = found.flatten(0, 1)[:5].flatten(1)
    assert not flat.amin(1).any() and torch.allclose(flat.amax(1), torch.ones(5), atol=1e-5)
    alone = priors(query[1:], support[1:, :1], masks[1:, :1])
    assert torch.allclose(found[1, 0], alone[0, 0], atol=1e-6)


def test_rounding_of_a_resize_is_no_foreground():
    query, support = cells(1, 8, 20), cells(2, 8, 30)
    mask = torch.zeros(30)
    mask[4], mask[5] = 1, 1e-7
    least = torch.zeros(30)
    least[4] = 1
    assert torch.equal(likeness(query, support, mask), likeness(query, support, least))


def test_levels_are_reduced_as_they_stand_side_by_side_at_the_finest_ones_size():
    torch.manual_seed(0)
    channels = {"stage2": 6, "stage3": 10, "stage4": 4}
    head = PFENet(channels, width=8, sizes=(7, 4)).eval()
    maps = {
        "stage2": torch.randn(2, 6, 9, 11),
        "stage3": torch.randn(2, 10, 5, 6),
        "stage4": torch.randn(2, 4, 3, 3),
    }
    for corners in (True, False):
        head.corners = corners
        side_by_side = torch.cat([resize(maps["stage3"], (9, 11), corners), maps["stage2"]], 1)
        query, support = head.encode(maps), head.encode_support(maps)
        assert torch.allclose(query["reduced"], head.down_query(side_by_side), atol=1e-5)
        assert torch.allclose(support["reduced"], head.down_supp(side_by_side), atol=1e-5)
        assert torch.equal(query["deep"], maps["stage4"]) and query.keys() == support.keys()


class Stops(ResNet):
    """Cannot go on from a stage, as timm's networks."""

    def __init__(self):
        super().__init__(18)

    resume = Backbone.resume


def test_where_the_network_cannot_go_on_from_stage_3_the_message_names_the_option():
    torch.manual_seed(0)
    options = {"width": 8, "sizes": [1, 0.5]}
    images, masks = 255 * torch.rand(2, 3, 49, 49), torch.zeros(2, 49, 49, dtype=torch.int64)
    masks[:, 8:30, 8:30] = 1
    with pytest.raises(UserError, match=r"Stops cannot go on from stage3.*head.cut=nothing"):
        build_model("pfenet", options, Stops()).encode_support(images, masks)
    model = build_model("pfenet", {**options, "cut": "nothing"}, Stops())
    deep = model.encode_support(images, masks)["deep"]
    assert torch.equal(deep, model.encode(images)["deep"])


def test_a_cut_of_stage_4_needs_stage_4():
    with pytest.raises(ValueError, match="cut=stage4 has no part in stage3, stage2; allowed there: nothing"):
        PFENet(CHANNELS, deep="stage3")
    assert PFENet(CHANNELS, deep="stage3", cut="nothing").levels == ("stage3", "stage2")


@pytest.mark.parametrize(("shots", "titles"), [
    (1, ["prior"]), (2, ["prior", "prior of support 1", "prior of support 2"]),
])  # fmt: skip
def test_the_prior_is_explained_and_that_of_each_support_where_there_are_several(shots, titles):
    torch.manual_seed(0)
    head = PFENet({"stage2": 6, "stage3": 10, "stage4": 4}, width=8, sizes=(7,)).eval()
    masks = (torch.rand(1, shots, 49, 49) > 0.5).long()
    e = Encoded({"deep": torch.rand(1, 4, 7, 7)}, {"deep": torch.rand(1, shots, 4, 7, 7)}, masks, [0])
    panels = head.explain(e)
    assert [p.title for p in panels] == titles
    each = torch.stack([p.values for p in panels[1:] or panels])
    assert torch.allclose(panels[0].values, each.mean(0))


def test_the_whole_matrix_of_cosines_is_not_needed():
    query, support, mask = cells(1, 16, 900), cells(2, 16, 900), torch.zeros(900)
    mask[:50] = 1
    with Largest() as largest:
        likeness(query, support, mask)
    assert largest.numel <= 51 * 900


def test_supports_without_foreground_give_zeros_and_a_note():
    torch.manual_seed(0)
    head = PFENet({"stage2": 6, "stage3": 10, "stage4": 4}, width=8, sizes=(7,)).eval()
    maps = {"reduced": torch.rand(2, 8, 7, 7), "deep": torch.rand(2, 4, 7, 7)}
    masks = torch.zeros(2, 2, 49, 49, dtype=torch.int64)
    masks[0, 1, 8:30, 8:30] = 1
    e = Encoded(maps, {k: x[:, None].expand(-1, 2, -1, -1, -1) for k, x in maps.items()}, masks, [0, 1])
    assert not support_vector(e)[1].any() and support_vector(e)[0].any()
    assert head(e).notes["empty_support"].tolist() == [False, True]
    assert not head.explain(e)[0].values[1].any()


def test_a_size_of_1_is_the_whole_map_however_it_is_written():
    maps = torch.rand(1, 8, 5, 9), torch.rand(1, 8, 1, 1), torch.rand(1, 1, 5, 9)
    for one in (1, 1.0):
        head = PFENet({"stage2": 6, "stage3": 10, "stage4": 4}, width=8, sizes=(one,))
        assert head.context(*maps, True, {})[1][0].shape[-2:] == (5, 9)
