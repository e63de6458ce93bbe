"""What a head has by itself, and parts of a batch."""

import pytest
import torch
from torch import nn

from fss.heads import Encoded, Head, HeadOutput, Panel


class Plain(Head):
    levels = ("stage3",)


class Cutting(Plain):
    support_cut = "image"


class Otherwise(Plain):
    def encode_support(self, features):
        return features


def test_a_part_of_a_batch_is_that_of_each_of_its_fields():
    n = torch.arange(4)
    maps = lambda: {"x": torch.rand(4, 3, 2, 2), "y": torch.rand(4, 1, 2, 2)}  # noqa: E731
    network = lambda images: {"x": images}  # noqa: E731
    e = Encoded(
        maps(), maps(), n.view(4, 1, 1, 1), [5, 6, 7, 8], False, n.view(4, 1, 1), n.view(4, 1, 1) > 1, n,
        network,
    )  # fmt: skip
    part = e.part(1, 3)
    assert len(e) == 4 and len(part) == 2
    for name in ("query", "support"):
        assert all(torch.equal(v[1:3], getattr(part, name)[k]) for k, v in getattr(e, name).items())
        assert getattr(part, name).keys() == {"x", "y"}
    for name in ("support_masks", "query_mask", "photo", "base_class"):
        assert torch.equal(getattr(part, name), getattr(e, name)[1:3]), name
    assert part.seeds == [6, 7] and part.corners is False and part.network is network
    bare = Encoded(maps(), maps(), n.view(4, 1, 1, 1), [5, 6, 7, 8]).part(0, 1)
    assert (bare.query_mask, bare.photo, bare.base_class, bare.network, bare.corners) == (None,) * 4 + (True,)


def test_a_panel_of_one_episode():
    values, points = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 5, 2)
    one = Panel("t", values, "support", points).of(2)
    assert torch.equal(one.values, values[2]) and torch.equal(one.points, points[2])
    assert (one.title, one.over) == ("t", "support") and Panel("t", values, "query").of(0).points is None


def test_a_support_is_encoded_as_a_query_unless_a_head_says_otherwise():
    made = [kind({"stage3": 8}) for kind in (Plain, Cutting, Otherwise)]
    assert [head.encodes_alike for head in made] == [True, False, False]
    features = {"stage3": torch.rand(1, 8, 2, 2)}
    assert made[0].encode(features) is made[0].encode_support(features) is features


def test_what_a_head_has_by_itself():
    head = Plain({"stage3": 8})
    assert (head.corners, head.support_cut, head.query_only) == (True, "nothing", ())
    assert (head.balanced_loss, head.learns_from_support, head.learns) == (False, True, False)
    assert head.explain(None) == [] and head.groups() is None
    with pytest.raises(NotImplementedError, match="Plain must define forward"):
        head(None)
    head.frozen, head.own = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)
    assert head.learns  # some do
    head.own.requires_grad_(False)
    assert not head.learns


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("learns", [True, False])
def test_supports_have_gradients_where_training_and_the_head_have(enabled, learns):
    head = Plain({"stage3": 8})
    head.learns_from_support = learns
    with torch.set_grad_enabled(enabled), head.support_gradients():
        assert torch.is_grad_enabled() == (enabled and learns)


def test_a_level_that_the_network_lacks_is_named():
    with pytest.raises(ValueError, match=r"needs stage3, and this network has stage1, stage2\. A neck"):
        Plain({"stage1": 4, "stage2": 8, "stage1.0": 4})


def test_an_answer_may_have_logits_alone():
    first, second = HeadOutput(torch.zeros(1, 2, 3, 3)), HeadOutput(torch.zeros(1, 2, 3, 3))
    first.losses["own"], first.notes["odd"] = torch.tensor(1.0), torch.ones(1)
    assert second.losses == {} and second.notes == {}
