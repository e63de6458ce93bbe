"""Thresholds chosen by leaving supports out: moved where all agree, and no further than they say."""

import numpy as np
import pytest

import fss
from fss.photos.threshold import SHIFTS, border, curve
from tests.photos.test_predict import NETWORK, SIZE, scene


def test_a_curve_is_the_iou_at_each_border():
    odds = np.array([[-2.0, -0.1, 0.6, 2.0]])
    mask = np.array([[0, 1, 1, 255]])
    found = dict(zip(SHIFTS.tolist(), curve(odds, mask).tolist(), strict=True))
    assert found[-3.0] == pytest.approx(2 / 3) and found[-1.0] == 1.0
    assert found[0.0] == 0.5 and found[1.0] == 0


def bump(best):
    return 1 - 0.2 * np.abs(SHIFTS - best)


def test_the_border_moves_where_every_support_gains():
    assert border([]) == 0
    assert border([bump(1.0), bump(1.0)]) == 1.0
    assert border([bump(1.0), bump(-1.0)]) == 0  # they disagree
    assert border([bump(0.5), bump(2.0)]) == 0.5  # as far as the more careful one


def test_a_small_gain_moves_nothing():
    assert border([np.where(SHIFTS == 2.0, 0.51, 0.5)] * 2) == 0


def test_one_support_leaves_even_odds_and_two_are_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(fss.photos.threshold, "border", lambda curves: asked.append(len(curves)) or 0.5)
    predictor = fss.Predictor(settings=NETWORK, size=SIZE)
    supports = [fss.Support(*scene((y, 40), seed=y), "x") for y in (4, 20, 36)]
    predictor.learn(supports)
    assert asked == [3] and predictor.thresholds["x"] == pytest.approx(1 / (1 + np.exp(-0.5)))
    moved = predictor(supports[0].image).odds
    predictor.learn(supports, leave_one_out=False)
    assert asked == [3] and predictor.thresholds["x"] == 0.5
    assert (moved <= predictor(supports[0].image).odds + 1e-5).all()  # a higher border finds less
    predictor.learn(supports[:1])
    assert asked[-1] == 0
