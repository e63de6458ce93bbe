"""Local crops: where they lie, and that boxes and pixels agree."""

import numpy as np
import pytest
import torch

from fss.l2g.crops import boxes, cut, place_crops

RANDOM = np.random.default_rng


def test_corners_then_random():
    found = place_crops("corners", 6, 448, 320, RANDOM(0))
    assert found[:4].tolist() == [[0, 0], [128, 0], [0, 128], [128, 128]]
    assert found.shape == (6, 2) and (found >= 0).all() and (found <= 128).all()
    other = place_crops("corners", 6, 448, 320, RANDOM(1))
    assert (other[:4] == found[:4]).all() and (other[4:] != found[4:]).any()
    assert (place_crops("corners", 6, 448, 320, RANDOM(0)) == found).all()


def test_random_reaches_all_of_the_image():
    found = place_crops("random", 400, 50, 40, RANDOM(0))
    assert found.min() == 0 and found.max() == 10 and len(np.unique(found[:, 0])) == 11


def test_uniform_is_an_even_grid():
    found = place_crops("uniform", 6, 100, 60, RANDOM(0))
    assert found.tolist() == [[0, 0], [20, 0], [40, 0], [0, 40], [20, 40], [40, 40]]
    assert place_crops("uniform", 1, 100, 60, RANDOM(0)).tolist() == [[20, 20]]
    assert place_crops("uniform", 5, 100, 60, RANDOM(0))[:, 1].tolist() == [20] * 5  # a prime: one row


def test_unknown_placement():
    with pytest.raises(ValueError, match="allowed: corners, random, uniform"):
        place_crops("middle", 4, 10, 5, RANDOM(0))


def test_pixels_and_boxes_are_of_the_same_places():
    images = torch.arange(2 * 12 * 12).view(2, 1, 12, 12)
    corners = torch.tensor([[[0, 0], [4, 2]], [[8, 8], [0, 8]]])  # x, y
    crops, found = cut(images, corners, 4), boxes(corners, 4)
    assert crops.shape == (4, 1, 4, 4)
    assert found.tolist() == [[0, 0, 0, 4, 4], [0, 4, 2, 8, 6], [1, 8, 8, 12, 12], [1, 0, 8, 4, 12]]
    for crop, (i, x1, y1, x2, y2) in zip(crops, found.int().tolist(), strict=True):
        assert torch.equal(crop, images[i, :, y1:y2, x1:x2])
