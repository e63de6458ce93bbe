"""The prototype head by hand, against PANet's own order of operations, and its alignment loss."""

import pytest
import torch
import torch.nn.functional as F

from fss.heads import Encoded
from fss.heads.prototype import Prototype, prototypes, similarity


def test_prototypes_by_hand():
    features = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[None, None, None]  # (1,1,1,2,2)
    masks = torch.tensor([[[[0, 1], [1, 255]]]])
    assert prototypes(features, masks).flatten().tolist() == pytest.approx([1.0, 4.0])


def test_prototypes_are_means_of_resized_features():
    torch.manual_seed(0)
    features, masks = torch.randn(2, 3, 4, 5, 7), torch.randint(0, 3, (2, 3, 33, 49))
    masks[masks == 2] = 255
    large = F.interpolate(features.flatten(0, 1), (33, 49), mode="bilinear", align_corners=True)
    large = large.unflatten(0, (2, 3))
    for b in range(2):
        for label in (0, 1):
            means = [large[b, k][:, masks[b, k] == label].mean(1) for k in range(3)]
            wanted = torch.stack(means).mean(0)
            assert torch.allclose(prototypes(features, masks)[b, label], wanted, atol=1e-5)


def test_a_shot_without_foreground_is_left_out_of_the_mean():
    features = torch.randn(1, 2, 3, 5, 5)
    masks = torch.zeros(1, 2, 33, 33, dtype=torch.int64)
    masks[0, 0, 8:20, 8:20] = 1
    assert torch.allclose(
        prototypes(features, masks)[0, 1], prototypes(features[:, :1], masks[:, :1])[0, 1], atol=1e-6
    )


def test_similarity_is_the_cosine():
    x, y = torch.randn(2, 4, 3, 3), torch.randn(2, 2, 4)
    wanted = F.cosine_similarity(x[:, None], y[..., None, None], dim=2)
    assert torch.allclose(similarity(x, y), wanted, atol=1e-6)


def test_alignment_alone_teaches_the_embedding():
    """Descent on the alignment loss lowers it: the query's prediction then segments the support."""
    torch.manual_seed(0)
    head = Prototype({"neck": 6}, embed=4, align=True)
    frozen = {"neck": torch.randn(2, 6, 9, 9)}
    masks = (torch.rand(2, 1, 65, 65) > 0.7).long()
    support = {"neck": torch.randn(2, 6, 9, 9)}
    optimizer = torch.optim.SGD(head.parameters(), 0.05)
    seen = []
    for _ in range(30):
        shots = {k: v[:, None] for k, v in head.encode(support).items()}
        e = Encoded(head.encode(frozen), shots, masks, [0, 0], query_mask=masks[:, 0])
        loss = head(e).losses["alignment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.8 * seen[0]


def test_without_parameters_nothing_learns_and_alignment_is_refused():
    assert not Prototype({"neck": 6}).learns
    with pytest.raises(ValueError, match="align=true has nothing to teach"):
        Prototype({"neck": 6}, align=True)


def test_several_levels_are_compared_at_equal_weight():
    torch.manual_seed(0)
    head = Prototype({"stage3": 4, "stage4": 6}, level=["stage3", "stage4"])
    fine, coarse = torch.randn(1, 4, 9, 9), 100 * torch.randn(1, 6, 5, 5)
    (both,) = head.encode({"stage3": fine, "stage4": coarse}).values()
    assert both.shape == (1, 10, 9, 9)
    assert torch.allclose(both[:, :4], F.normalize(fine, dim=1))
    assert torch.allclose(both[:, 4:, ::2, ::2], F.normalize(coarse, dim=1), atol=1e-6)


def test_patches_are_resized_by_their_middles():
    torch.manual_seed(0)
    features, masks = torch.randn(1, 1, 3, 4, 6), (torch.rand(1, 1, 32, 48) > 0.6).long()
    large = F.interpolate(features[0], (32, 48), mode="bilinear", align_corners=False)[0]
    got = prototypes(features, masks, corners=False)[0, 1]
    assert torch.allclose(got, large[:, masks[0, 0] == 1].mean(1), atol=1e-5)


def test_alignment_judges_each_episode_by_its_own_prototypes():
    torch.manual_seed(0)
    head = Prototype({"neck": 6}, embed=4, align=True)
    query, support = torch.randn(3, 6, 9, 9), torch.randn(3, 2, 6, 9, 9)
    masks = (torch.rand(3, 2, 65, 65) > 0.6).long()  # no 255: every episode has as many pixels

    def loss(episodes):
        shots = head.encode({"neck": support[episodes].flatten(0, 1)})["map"].unflatten(0, (-1, 2))
        e = Encoded(
            head.encode({"neck": query[episodes]}), {"map": shots}, masks[episodes], [0] * 3,
            query_mask=masks[episodes, 0],
        )  # fmt: skip
        return float(head(e).losses["alignment"].detach())

    each = [loss([i]) for i in range(3)]
    assert max(each) - min(each) > 1e-3
    assert loss([0, 1, 2]) == pytest.approx(sum(each) / 3, rel=1e-5)


def test_alignment_is_the_loss_of_the_supports_by_the_querys_own_prediction():
    """Equation 5, written out for one episode of two shots."""
    torch.manual_seed(0)
    head = Prototype({"neck": 6}, embed=4, align=True, scale=7.0)
    query, support = torch.randn(1, 6, 5, 7), torch.randn(1, 2, 6, 5, 7)
    masks = (torch.rand(1, 2, 33, 49) > 0.6).long()
    masks[..., :5] = 255
    x, shots = head.encode({"neck": query})["map"], head.encode({"neck": support[0]})["map"]
    out = head(Encoded({"map": x}, {"map": shots[None]}, masks, [0], query_mask=masks[:, 0]))
    predicted = out.logits[0].argmax(0)  # (h,w)
    assert 0 < predicted.sum() < 35
    means = torch.stack([x[0][:, predicted == label].mean(1) for label in (0, 1)])  # (2,C)
    answer = 7.0 * F.cosine_similarity(shots[:, None], means[None, :, :, None, None], dim=2)  # (K,2,h,w)
    large = F.interpolate(answer, (33, 49), mode="bilinear", align_corners=True)
    wanted = F.cross_entropy(large, masks[0], ignore_index=255)
    assert float(out.losses["alignment"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)


def test_a_class_that_no_shot_shows_has_a_prototype_of_zeros():
    masks = torch.zeros(1, 2, 33, 33, dtype=torch.int64)
    found = prototypes(torch.randn(1, 2, 3, 5, 5), masks)
    assert (found[0, 1] == 0).all() and found[0, 0].isfinite().all() and found[0, 0].any()


def test_panels_show_likeness_to_both_prototypes():
    torch.manual_seed(0)
    head, masks = Prototype({"neck": 6}), (torch.rand(2, 1, 33, 33) > 0.6).long()
    x, shots = torch.randn(2, 6, 5, 5), torch.randn(2, 1, 6, 5, 5)
    like = similarity(x, prototypes(shots, masks))
    foreground, background = head.explain(Encoded({"map": x}, {"map": shots}, masks, [0, 0]))
    assert (foreground.title, background.title) == ("like the foreground", "like the background")
    assert (like < 0).any()
    for panel, values in ((foreground, like[:, 1]), (background, like[:, 0])):
        assert panel.over == "query" and torch.equal(panel.values, values.clamp(min=0))


def test_logits_are_the_scaled_cosines():
    torch.manual_seed(0)
    head, masks = Prototype({"neck": 6}, scale=7.0), (torch.rand(2, 1, 33, 33) > 0.6).long()
    x, shots = torch.randn(2, 6, 5, 5), torch.randn(2, 1, 6, 5, 5)
    out = head(Encoded({"map": x}, {"map": shots}, masks, [0, 0]))
    assert torch.allclose(out.logits, 7 * similarity(x, prototypes(shots, masks)), atol=1e-6)
