"""The votes head against its formulas written out: softmax over all support cells, a walk by its inverse."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fss.errors import UserError
from fss.heads import Encoded, build_head
from fss.heads.cells import joined, mask_areas
from fss.heads.votes import MAP, Cells, Votes, attention


def episodes(shots=2, seed=0, photo=None):
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (2, shots, 33, 33), generator=g)
    masks[masks == 2] = 255
    query = F.normalize(torch.randn(2, 8, 5, 5, generator=g), dim=1)
    support = F.normalize(torch.randn(2, shots, 8, 5, 5, generator=g), dim=2)
    return Encoded({MAP: query}, {MAP: support}, masks, [0, 0], photo=photo)


def by_hand(e, b, tau, balance, walk, walk_tau):
    """Log-odds (h,w) of episode `b`, cell by cell."""
    q = e.query[MAP][b].flatten(1).T  # (n,C)
    k = torch.cat([s.flatten(1).T for s in e.support[MAP][b]])  # (m,C)
    area = mask_areas(e.support_masks, (5, 5), True)[b].transpose(0, 1).flatten(1)  # (2,m)
    weight = (q @ k.T / tau).exp()  # (n,m)
    background, foreground = ((weight * a).sum(1) / a.sum() ** balance for a in area)
    odds = (foreground / background).log()
    both = area.sum(0)
    centred = F.normalize(q - (k * both[:, None]).sum(0) / both.sum(), dim=1)
    look = (centred @ centred.T / walk_tau).exp() * (1 - torch.eye(len(q)))
    look = look / look.sum(1, keepdim=True)
    return ((1 - walk) * torch.linalg.inv(torch.eye(len(q)) - walk * look) @ odds).view(5, 5)


@pytest.mark.parametrize("shots", [1, 3])
def test_it_is_its_formula(shots):
    head, e = Votes({"stage4": 8}, tau=0.5, trust=4, walk=0.6, walk_tau=0.3, steps=60), episodes(shots)
    logits = head(e).logits
    for b in range(2):
        wanted = by_hand(e, b, 0.5, 4 / (4 + shots), 0.6, 0.3)
        assert torch.allclose(logits[b, 1] - logits[b, 0], wanted, atol=1e-4)


def test_every_shot_votes_in_any_order_and_ignored_pixels_do_not():
    head, e = Votes({"stage4": 8}), episodes(3)
    turned = Encoded(e.query, {MAP: e.support[MAP].flip(1)}, e.support_masks.flip(1), [0, 0])
    assert torch.allclose(head(e).logits, head(turned).logits, atol=1e-4)
    fewer = Encoded(e.query, {MAP: e.support[MAP][:, :2]}, e.support_masks[:, :2], [0, 0])
    assert not torch.allclose(head(e).logits, head(fewer).logits, atol=1e-2)
    without = e.support_masks.clone()
    without[:, 2] = 255
    blind = Encoded(e.query, e.support, without, [0, 0])
    same_trust = Votes({"stage4": 8}, trust=0)  # without trust the number of shots plays no part
    assert torch.allclose(same_trust(blind).logits, same_trust(fewer).logits, atol=1e-4)


def test_the_canvas_around_the_photo_has_no_say_in_the_walk():
    photo = torch.zeros(2, 33, 33, dtype=torch.bool)
    photo[:, :17] = True  # cells of rows 0, 1 and, half, 2
    head, e = Votes({"stage4": 8}), episodes(photo=photo)
    other = {MAP: e.query[MAP].clone()}
    other[MAP][:, :, 3:] = F.normalize(torch.randn(2, 8, 2, 5), dim=1)
    changed = Encoded(other, e.support, e.support_masks, [0, 0], photo=photo)
    assert torch.allclose(head(e).logits[:, :, :2], head(changed).logits[:, :, :2], atol=1e-5)


def test_supports_without_object_are_finite_and_noted():
    e = episodes()
    e.support_masks[0] = 0
    out = Votes({"stage4": 8})(e)
    assert out.logits.isfinite().all() and out.notes["empty_support"].tolist() == [True, False]
    assert (out.logits[0, 1] < 0).all()  # nothing speaks for the foreground


def test_levels_are_joined_with_their_weights():
    features = {"stage3": torch.randn(1, 4, 9, 9), "stage4": torch.randn(1, 6, 5, 5)}
    head = Votes({"stage3": 4, "stage4": 6}, {"stage3": 0.5, "stage4": 1})
    cells = head.encode(features)[MAP]
    assert cells.shape == (1, 10, 9, 9) and torch.allclose(cells.norm(dim=1), torch.ones(1, 9, 9))
    share = cells[:, :4].norm(dim=1) / cells[:, 4:, ::2, ::2].norm(dim=1).mean()
    assert 0.4 < float(share.mean()) < 0.7
    assert torch.equal(joined(features, ["stage3"], True), features["stage3"])


def test_panels_are_shares():
    for panel in Votes({"stage4": 8}).explain(episodes(3)):
        assert panel.values.min() >= 0 and panel.values.max() <= 1
        assert panel.values.shape == ((2, 3, 5, 5) if panel.over == "support" else (2, 5, 5))


@pytest.mark.parametrize("options", [{"tau": 0}, {"walk": 1}, {"trust": -1}, {"level": {"stage4": 0.0}}])
def test_wrong_options_say_what_is_allowed(options):
    with pytest.raises(UserError, match="allowed"):
        build_head("votes", options, {"stage4": 8})


@pytest.mark.parametrize("corners", [True, False])
def test_maps_that_are_not_square_are_joined_at_the_first_ones_size(corners):
    features = {"stage3": torch.randn(2, 4, 9, 13), "stage4": torch.randn(2, 6, 5, 7).bfloat16()}
    large = F.interpolate(
        F.normalize(features["stage4"].float(), dim=1), (9, 13), mode="bilinear", align_corners=corners
    )
    wanted = torch.cat([0.5 * F.normalize(features["stage3"], dim=1), 2 * large], 1)
    assert torch.allclose(joined(features, ["stage3", "stage4"], corners, [0.5, 2]), wanted, atol=1e-6)
    alone = joined(features, ["stage4"], corners, [2])  # one level stays as it is
    assert alone.dtype == torch.float32 and torch.equal(alone, features["stage4"].float())


@pytest.mark.parametrize(("rows", "on"), [(1, False), (2, False), (3, True)])
def test_a_cell_lies_on_the_photo_where_more_of_it_does_than_on_the_canvas(rows, on):
    cell = {MAP: torch.ones(1, 1, 1, 2)}
    photo = torch.zeros(1, 4, 4, dtype=torch.bool)
    photo[:, :rows] = True
    e = Encoded(cell, {MAP: cell[MAP][:, None]}, photo[:, None].long(), [0], corners=False, photo=photo)
    assert Cells.of(e).on_photo.tolist() == [[on, on]]
    e.photo = None
    assert Cells.of(e).on_photo.all()


@pytest.mark.parametrize("tau", [0.002, 0.05])
@pytest.mark.parametrize("keys", [4, 7, 21])  # fewer than the queries, and more, in unequal parts
def test_attention_in_parts_is_the_softmax_of_all(tau, keys):
    torch.manual_seed(0)
    query = F.normalize(torch.randn(2, 6, 5, dtype=torch.float64), dim=2).requires_grad_()
    support = F.normalize(torch.randn(2, keys, 5, dtype=torch.float64), dim=2)
    values = torch.rand(2, keys, 3, dtype=torch.float64)
    wanted = (query @ support.mT / tau).softmax(2) @ values
    found = attention(query, support, values, tau)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    one, other = (torch.autograd.grad(x.square().sum(), query)[0] for x in (found, wanted))
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


def test_no_likeness_of_many_supports_is_held_at_once():
    """Fifty supports take the memory of their features, and of one map of likenesses."""
    query = F.normalize(torch.randn(1, 400, 8), dim=2)
    keys, values = query.repeat(1, 50, 1), torch.rand(1, 20_000, 2)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with Watch():
        attention(query, keys, values, 0.035)
    assert max(sizes) <= 400 * 400
