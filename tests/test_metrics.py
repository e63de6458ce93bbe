"""Scores against the authors' counts, and against sums made by hand."""

import pytest
import torch

from fss.metrics import EpisodeScore, counts, interval95


def test_counts_and_scores_match_the_authors(fixture_numbers):
    data = fixture_numbers("metric")
    inter, union = counts(torch.tensor(data["prediction"]), torch.tensor(data["target"]))
    assert torch.equal(inter.double(), torch.tensor(data["intersection"]))
    assert torch.equal(union.double(), torch.tensor(data["union"]))
    score = EpisodeScore(int(data["class_id"].max()))
    score.update(torch.tensor(data["class_id"]), inter, union)
    got = score.compute()
    assert got.per_class == pytest.approx({int(c): 100 * iou for c, iou in data["class_iou"]})
    assert got.miou == pytest.approx(100 * float(data["mean_iou"]))
    assert got.fb_iou == pytest.approx(100 * float(data["fb_iou"]))


def test_hand_computed_with_ignored_pixels():
    prediction = torch.tensor([[[1, 1, 0, 0, 1]]])
    mask = torch.tensor([[[1, 0, 0, 1, 255]]])
    inter, union = counts(prediction, mask)
    assert inter.tolist() == [[1, 1]] and union.tolist() == [[3, 3]]


def test_classes_add_counts_and_unseen_classes_are_left_out():
    score = EpisodeScore(3)
    score.update(torch.tensor([1, 1]), torch.tensor([[0, 1], [0, 9]]), torch.tensor([[0, 10], [0, 10]]))
    score.update(torch.tensor([3]), torch.tensor([[5, 0]]), torch.tensor([[10, 4]]))
    got = score.compute()
    assert got.per_class == pytest.approx({1: 50.0, 3: 0.0})  # a mean over episodes would agree; sums decide
    assert got.miou == pytest.approx(25.0)
    assert got.fb_iou == pytest.approx((50 + 100 * 10 / 24) / 2)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        counts(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))


def test_interval():
    assert interval95([50.0]) is None
    assert interval95([1.0, 2.0, 3.0]) == pytest.approx(4.303 / 3**0.5)  # deviation 1, t(2) = 4.303
