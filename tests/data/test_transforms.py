"""The published test resize against the authors' numbers; augmentations keep their word."""

import cv2
import numpy as np
import pytest
import torch

from fss.backbones.base import Backbone
from fss.data.transforms import episode_view, fit, fit_mask, fitted_size, flips, random_view
from fss.ops import normalise, to_rgb
from tests.conftest import relative_error


@pytest.mark.parametrize("name", ["eval_resize_37x50", "eval_resize_61x44"])
def test_resize_matches_the_authors(fixture_numbers, name):
    data = fixture_numbers(name)
    size = int(data["size"])
    assert relative_error(fit(data["image"], size), data["out_image"]) < 1e-4
    assert np.array_equal(fit_mask(data["label"], size), data["out_label"])


def test_order_of_operations_in_the_size():
    assert fitted_size(375, 500, 473) == (352, 472)
    assert fitted_size(500, 375, 473) == (472, 352)
    # Every size up to 700 px: the formula in words, with the multiplication where the protocol has it.
    for b in range(1, 700):
        assert fitted_size(700, b, 473)[1] == max(int(b * (473 / 700)) // 8 * 8, 8)


def test_normalise_is_imagenets():
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    wanted = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalise(white).flatten().tolist() == pytest.approx(wanted)
    assert Backbone().pixels(white[None]).flatten().tolist() == pytest.approx(wanted)
    assert to_rgb(normalise(white)).flatten().tolist() == pytest.approx([255] * 3)


def test_flips_move_image_and_mask_together():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    mask = image[:, :, 0].copy()
    seen = set()
    for seed in range(40):
        i, m = flips(image, mask, np.random.default_rng(seed))
        assert np.array_equal(i[:, :, 0], m)
        seen.add(m.tobytes())
    assert len(seen) == 4


def test_random_view_keeps_image_and_mask_aligned_and_pads():
    image = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    image[10:30, 20:50], mask[10:30, 20:50] = 200, 7
    for seed in range(10):
        view, labels, photo = random_view(image, mask, 81, (0.8, 1.25), 15, np.random.default_rng(seed))
        assert view.shape == (81, 81, 3) and labels.shape == photo.shape == (81, 81)
        assert np.array_equal(photo, labels != 255)  # the mask itself has no 255
        assert set(np.unique(labels)) <= {0, 7, 255}
        agree = (view[..., 0] > 100) == (labels == 7)
        assert agree[labels != 255].mean() > 0.97  # all but interpolated edges
        assert (labels == 255).any() and (labels == 7).any()


def test_episode_view_keeps_image_and_mask_aligned():
    """ASGNet's views: all are S x S, differ, repeat with their seed, and move image and mask together."""
    mask = np.zeros((120, 160), np.uint8)
    mask[30:90, 40:120] = 1
    image = np.repeat((mask * 200)[:, :, None], 3, 2)
    seen = set()
    for seed in range(20):
        i, m, photo = episode_view(image, mask, 113, np.random.default_rng(seed))
        again = episode_view(image, mask, 113, np.random.default_rng(seed))
        assert i.shape == (113, 113, 3) and m.shape == photo.shape == (113, 113)
        assert np.array_equal(i, again[0]) and np.array_equal(m, again[1])
        assert np.array_equal(photo, m != 255)
        inside = cv2.erode((m == 1).astype(np.uint8), np.ones((9, 9))) == 1
        outside = cv2.erode((m == 0).astype(np.uint8), np.ones((9, 9))) == 1
        assert inside.any() and (i[inside] > 150).all() and (i[outside] < 50).all()
        seen.add(m.tobytes())
    assert len(seen) == 20
