"""Augmentations keep their word."""

import cv2
import numpy as np
import pytest
import torch

from fss.backbones.base import Backbone
from fss.data.transforms import episode_view, flips, random_view, to_tensor
from fss.ops import normalise, to_rgb


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


def placed(view):
    """Angle (degrees), scale and centre of a view of an image whose first channels are its x and y."""
    inside = cv2.erode(view.photo.astype(np.uint8), np.ones((5, 5))) == 1
    row, column = (int(np.median(places)) for places in np.nonzero(inside))
    at = view.image[..., :2]
    along, down = (
        (at[row, column + 20] - at[row, column - 20]) / 40,
        at[row + 20, column] - at[row - 20, column],
    )
    scale = 1 / np.hypot(*along)
    assert np.hypot(*down) / 40 == pytest.approx(1 / scale, rel=0.02)  # both sides by the same factor
    return np.degrees(np.arctan2(along[1], along[0])), scale, at[row, column]


def coordinates(height=200, width=240):
    """An image whose channels are x, y and 0, and an empty mask."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], 2).astype(np.float32), np.zeros((height, width), np.uint8)


def test_views_turn_both_ways_and_scale_as_far_as_they_were_told():
    image, mask = coordinates()
    views = [random_view(image, mask, 141, (0.5, 2.0), 30, np.random.default_rng(s)) for s in range(150)]
    angles, scales, _ = map(np.array, zip(*(placed(v) for v in views), strict=True))
    assert -31 < angles.min() < -25 and 25 < angles.max() < 31 and abs(angles.mean()) < 5
    assert 0.48 < scales.min() < 0.56 and 1.8 < scales.max() < 2.08
    assert abs(np.log(scales).mean()) < 0.12  # as often smaller as larger


def test_a_view_that_may_only_be_cropped_shows_every_corner_and_nothing_else():
    image, mask = coordinates()
    firsts = set()
    for seed in range(60):
        view = random_view(image, mask, 141, (1, 1), 0, np.random.default_rng(seed))
        assert view.photo.all()  # the window stays on an image that is larger
        firsts.add(tuple(view.image[0, 0, :2].tolist()))
    x, y = np.array(sorted(firsts)).T
    assert x.min() < 12 and x.max() > 99 - 12 and y.min() < 8 and y.max() > 59 - 8
    small = np.full((60, 80, 3), 9, np.uint8), np.zeros((60, 80), np.uint8)
    lefts = []
    for seed in range(60):  # an image that is smaller lies whole, anywhere in the window
        view = random_view(*small, 141, (1, 1), 0, np.random.default_rng(seed))
        assert abs(int(view.photo.sum()) - 60 * 80) < 150
        lefts.append(int(view.photo.any(0).argmax()))
        assert view.image[~cv2.dilate(view.photo.astype(np.uint8), np.ones((3, 3))).astype(bool)].max() < 130
    assert min(lefts) < 8 and max(lefts) > 61 - 8


def test_asgnets_views_are_what_its_publication_says():
    """Scale 0.9 to 1.1; in half of them each a turn up to 10 degrees, a blur, and a left-right flip."""
    image, mask = coordinates()
    coarse = np.random.default_rng(0).integers(0, 2, (50, 60))
    image[..., 2] = 255 * coarse.repeat(4, 0).repeat(4, 1)  # steps, which a blur makes slopes
    turned = flipped = blurred = 0
    scales, angles = [], []
    for seed in range(120):
        view = episode_view(image, mask, 141, np.random.default_rng(seed))
        if view.image[70, 100, 0] < view.image[70, 40, 0]:
            flipped += 1
            view = type(view)(*(np.ascontiguousarray(part[:, ::-1]) for part in view))
        angle, scale, _ = placed(view)
        blurred += bool(np.abs(np.diff(view.image[30:-30, 30:-30, 2])).max() < 130)
        turned += bool(abs(angle) > 0.8)
        scales, angles = [*scales, scale], [*angles, angle]
    assert 0.88 < min(scales) < 0.92 and 1.08 < max(scales) < 1.12
    assert -10.6 < min(angles) < -7.5 and 7.5 < max(angles) < 10.6
    assert 40 <= flipped <= 80 and 40 <= blurred <= 80 and 35 <= turned <= 75


def test_flips_are_left_right_and_upside_down_each_in_half():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)
    found = [flips(image[..., None], image, np.random.default_rng(s))[1].tolist() for s in range(200)]
    for wanted in ([[0, 1], [2, 3]], [[1, 0], [3, 2]], [[2, 3], [0, 1]], [[3, 2], [1, 0]]):
        assert 28 <= found.count(wanted) <= 75


def test_channels_move_before_rows_and_columns():
    one, many = np.zeros((4, 5, 3), np.uint8), np.zeros((2, 4, 5, 3), np.uint8)
    assert to_tensor(one).shape == (3, 4, 5) and to_tensor(many).shape == (2, 3, 4, 5)
    one[1, 2, 0] = 7
    assert to_tensor(one)[0, 1, 2] == 7
    view = to_tensor(many)
    many[1, 2, 3, 1] = 9
    assert view[1, 1, 2, 3] == 9  # the same memory
