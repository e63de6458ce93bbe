"""Masks at the photo's edges: the guided filter against its equations, window by window."""

import numpy as np
import pytest

from fss.photos import edges
from fss.photos.edges import Guide, refined


def by_hand(image, values, radius):
    """Equations 19 to 21 of the paper in float64, for pixels whose windows lie inside."""
    colours = image / 255.0
    h, w = values.shape
    slopes, levels = np.zeros((h, w, 3)), np.zeros((h, w))
    for y in range(radius, h - radius):
        for x in range(radius, w - radius):
            where = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
            i, p = colours[where].reshape(-1, 3), values[where].ravel()
            covariance = np.cov(i.T, bias=True) + 1e-4 * np.eye(3)
            slopes[y, x] = np.linalg.solve(covariance, (i * p[:, None]).mean(0) - i.mean(0) * p.mean())
            levels[y, x] = p.mean() - slopes[y, x] @ i.mean(0)
    out = np.full((h, w), np.nan)
    for y in range(2 * radius, h - 2 * radius):
        for x in range(2 * radius, w - 2 * radius):
            where = np.s_[y - radius : y + radius + 1, x - radius : x + radius + 1]
            out[y, x] = slopes[where].reshape(-1, 3).mean(0) @ colours[y, x] + levels[where].mean()
    return out


def test_the_filter_is_its_equations():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (17, 19, 3)).astype(np.uint8)
    values = random.random((17, 19)).astype(np.float32)
    wanted = by_hand(image, values, 2)
    inside = ~np.isnan(wanted)
    assert inside.sum() == 9 * 11
    assert np.abs(Guide(image, 2)(values)[inside] - wanted[inside]).max() < 1e-3


def blurred_square():
    """A photo with a red square on green, and log-odds that are soft where the photo is sharp."""
    image = np.zeros((96, 128, 3), np.uint8)
    image[..., 1] = 150
    truth = np.zeros((96, 128), bool)
    truth[30:70, 40:90] = True
    image[truth] = (200, 30, 30)
    soft = np.zeros((12, 16), np.float32)
    soft[4:9, 5:12] = 6
    return image, truth, soft[None] - 3


def test_soft_masks_take_the_photos_edges():
    image, truth, odds = blurred_square()
    (found,) = refined(odds, image, 128)
    assert found.shape == truth.shape
    plain = edges.enlarge(odds[0], truth.shape) > 0
    iou = lambda x: (x & truth).sum() / (x | truth).sum()  # noqa: E731
    assert iou(found > 0) > 0.97 > 0.9 > iou(plain)


def test_large_photos_are_filtered_smaller_and_odds_stay_finite(monkeypatch):
    monkeypatch.setattr(edges, "LONGEST", 64)
    image, _, odds = blurred_square()
    found = refined(1000 * odds, image, 128)
    assert found.shape == (1, 48, 64) and np.isfinite(found).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_photos_of_a_few_pixels(size):
    image = np.full((*size, 3), 100, np.uint8)
    assert np.isfinite(refined(np.ones((2, 1, 1), np.float32), image, 321)).all()
