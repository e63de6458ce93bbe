"""Scores against the authors' counts, and against sums made by hand."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fss.metrics import (
    EpisodeScore,
    boundary_band,
    confusion,
    counts,
    interval95,
    mean_average_precision,
    mean_iou,
)


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


def test_band_around_boundaries():
    labels = torch.zeros(1, 12, 20, dtype=torch.int64)
    labels[:, :, 10:] = 2
    labels[:, 9:] = 255  # the canvas's padding: rows of nothing else
    labels[:, 0, 3] = 255  # an ignored pixel is a border, and counts for nothing itself
    band = boundary_band(labels, reach=2)[0]
    wanted = torch.zeros(12, 20, dtype=torch.bool)
    wanted[:9, 8:12] = True
    wanted[:3, 1:6] = True
    wanted[0, 3] = False
    assert torch.equal(band, wanted)
    assert not boundary_band(torch.full((1, 5, 5), 255)).any()


def test_mean_iou_of_a_confusion():
    labels = torch.tensor([[[0, 1, 1, 2, 255]]])
    prediction = torch.tensor([[[0, 1, 2, 2, 1]]])
    matrix = confusion(prediction, labels, 4)
    assert matrix.sum() == 4 and matrix[1].tolist() == [0, 1, 1, 0]
    assert mean_iou(matrix) == (1 / 2 + 1 / 2) / 2  # class 3 is not seen; background does not count
    assert mean_iou(confusion(prediction, labels, 4, labels == 1)) == 1 / 2
    assert math.isnan(mean_iou(torch.zeros(3, 3)))


def test_mean_average_precision_by_hand():
    truth = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    scores = torch.tensor([[0.9, 0.1, 5.0], [0.8, 0.2, 4.0], [0.7, 0.3, 3.0], [0.1, 0.0, 2.0]])
    # Class 1 is hit in places 1 and 3: (1 / 1 + 2 / 3) / 2; class 2 in 1 and 2: 1; class 3 is nowhere.
    assert mean_average_precision(scores, truth) == pytest.approx(100 * (5 / 6 + 1) / 2)
    assert mean_average_precision(-scores, truth) == pytest.approx(
        100 * ((1 / 2 + 2 / 4) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    )  # turned round: class 1 in places 2 and 4, class 2 in 3 and 4, behind images 4 and 1
    assert mean_average_precision(torch.zeros(4, 3), truth) == pytest.approx(
        100 * (5 / 6 + (1 / 2 + 2 / 3) / 2) / 2
    )  # equal scores stay in their order
    assert math.isnan(mean_average_precision(scores, torch.zeros(4, 3, dtype=torch.bool)))


def test_intervals_are_students_for_any_number_of_values():
    """Between -t and t lie 95% of the distribution, integrated here; from 31 degrees on, 1.96."""
    for n in range(2, 32):
        degrees = n - 1
        values = [0.0] * (n - 1) + [float(n)]  # deviation sqrt(n), and so a half width of t
        t = interval95(values)
        x = np.linspace(-t, t, 200_001)
        density = (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        density *= math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
        assert density.sum() * (x[1] - x[0]) == pytest.approx(0.95, abs=1e-4), degrees
    assert interval95([0.0] * 31 + [32.0]) == pytest.approx(1.96)


def test_nothing_was_counted():
    empty = EpisodeScore(2).compute()
    assert math.isnan(empty.miou) and math.isnan(empty.fb_iou) and empty.per_class == {}
    score = EpisodeScore(1)  # a side that no episode shows, such as no background at all, is left out
    score.update(torch.tensor([1]), torch.tensor([[0, 4]]), torch.tensor([[0, 8]]))
    assert score.compute().fb_iou == score.compute().miou == 50


def test_processes_add_their_counts(monkeypatch):
    score = EpisodeScore(1)
    score.update(torch.tensor([1]), torch.tensor([[3, 4]]), torch.tensor([[5, 8]]))
    before = score.totals.clone()
    score.all_reduce(torch.device("cpu"))
    assert torch.equal(score.totals, before)  # alone
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda totals: totals.mul_(3))  # of three that counted the same
    score.all_reduce(torch.device("cpu"))
    assert torch.equal(score.totals, 3 * before)


def test_the_padding_of_one_canvas_is_none_of_the_others():
    labels = torch.zeros(2, 6, 6, dtype=torch.int64)
    labels[0, 4:] = 255
    labels[1, :, 3:] = 255
    labels[1, 0, 0] = 2
    together = boundary_band(labels, reach=1)
    assert torch.equal(together, torch.cat([boundary_band(one[None], reach=1) for one in labels]))
    assert together[1].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and not together[0].any()
