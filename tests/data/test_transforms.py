"""Augmentations keep their word."""

import cv2
import numpy as np
import pytest
import torch

from fss.backbones.base import Backbone
from fss.data.transforms import episode_view, flips, random_view, to_tensor, whole_view
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


def test_whole_view_keeps_the_whole_image_at_its_scaled_size():
    """HDMNet's views: no crop; image and mask move together, and repeat with their seed."""
    mask = np.zeros((120, 160), np.uint8)
    mask[30:90, 40:120] = 1
    image = np.repeat((mask * 200)[:, :, None], 3, 2)
    image[:4, :4] = (250, 0, 0)
    angles, flipped, sizes = set(), set(), set()
    for seed in range(40):
        view = whole_view(image, mask, np.random.default_rng(seed), (0.8, 1.25))
        again = whole_view(image, mask, np.random.default_rng(seed), (0.8, 1.25))
        assert all(np.array_equal(a, b) for a, b in zip(view, again, strict=True))
        h, w = view.mask.shape
        assert view.image.shape == (h, w, 3) and view.photo.shape == (h, w)
        assert 95 <= h <= 151 and w / h == pytest.approx(4 / 3, rel=0.02)
        assert (view.mask == 1).sum() == pytest.approx((mask == 1).sum() * (h / 120) ** 2, rel=0.05)
        assert np.array_equal(view.photo, view.mask != 255)
        inside = cv2.erode((view.mask == 1).astype(np.uint8), np.ones((9, 9))) == 1
        assert inside.any() and (view.image[inside] > 150).all()
        angles.add(bool(view.photo.all()))
        flipped.add(bool(view.image[: h // 4, : w // 4, 0].max() > 100))
        sizes.add(h)
    assert angles == flipped == {True, False} and len(sizes) > 10
    assert view.photo.mean() > 0.8


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


def spot(height, width, box, value=3):
    """A black image with a white box of a class, and its mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[box] = value
    return np.repeat((255 * (mask == value)).astype(np.uint8)[:, :, None], 3, 2), mask


def kept(view, mask, factor=1.0):
    """Share of the class's pixels that a view shows."""
    return (view.mask == 3).sum() / ((mask == 3).sum() * factor**2)


def test_crops_are_drawn_again_until_they_keep_the_class():
    image, mask = spot(300, 400, np.s_[120:180, 170:230])
    plain, chosen = (
        [random_view(image, mask, 161, (1, 1), 0, np.random.default_rng(s), v) for s in range(80)]
        for v in (None, 3)
    )
    assert sum(kept(v, mask) < 0.85 for v in plain) > 30
    assert all(kept(v, mask) >= 0.84 for v in chosen)  # but for pixels on the rim
    other = [random_view(image, mask, 161, (1, 1), 0, np.random.default_rng(s), 7) for s in range(80)]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(plain, other, strict=True))  # no such class
    for a, b in zip(plain, chosen, strict=True):
        if kept(a, mask) >= 0.86:
            assert np.array_equal(a.image, b.image)  # the first draw does


def test_scale_and_angle_are_drawn_once():
    """The crop alone is drawn again: an image shows one angle and scale wherever it is cut."""
    image, mask = coordinates(400, 480)
    mask[30:70, 400:440] = 3
    for seed in range(25):
        plain, chosen = (
            random_view(image, mask, 141, (0.8, 1.25), 30, np.random.default_rng(seed), v) for v in (None, 3)
        )
        for one, other in zip(placed(plain)[:2], placed(chosen)[:2], strict=True):
            assert one == pytest.approx(other, abs=0.5, rel=0.02)


def test_the_share_of_a_crop_is_that_of_its_pixels():
    """Accepted crops keep the class as counted in the warped mask, turned or not."""
    image, mask = spot(300, 400, np.s_[70:140, 220:290])
    shares = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        factor = float(np.exp(np.random.default_rng(seed).uniform(np.log(0.7), np.log(1.4))))
        view = random_view(image, mask, 161, (0.7, 1.4), 40, random, 3)
        shares.append(kept(view, mask, factor))
    assert min(shares) > 0.83


def test_the_last_draw_is_used_where_none_keeps_enough(monkeypatch):
    image, mask = spot(300, 300, np.s_[:, :])
    drawn = []

    class Counting:
        def __init__(self, seed):
            self.random = np.random.default_rng(seed)

        def uniform(self, low, high):
            drawn.append(self.random.uniform(low, high))
            return drawn[-1]

    view = random_view(image, mask, 101, (1, 1), 0, Counting(0), 3)
    crops = [d for d in drawn if np.ndim(d)]
    assert len(crops) == 32 and view.photo.all()  # once, and up to 31 times again
    x, y = np.array([50.5, 50.5]) + crops[-1]  # of the image's middle
    image[149:152, 149:152] = 0
    view = random_view(image, mask, 101, (1, 1), 0, Counting(0), 3)
    row, column = np.argwhere(view.image[..., 0] < 128).mean(0) if 0 < x < 101 and 0 < y < 101 else (y, x)
    assert (row, column) == pytest.approx((y, x), abs=1.5)


def test_asgnets_views_keep_the_class_and_scale_as_told():
    image, mask = spot(300, 400, np.s_[120:170, 170:220])
    areas = []
    for seed in range(60):
        view = episode_view(image, mask, 141, np.random.default_rng(seed), 3, (0.5, 0.6))
        areas.append((view.mask == 3).sum() / 50**2)
    assert min(areas) > 0.24 * 0.85 and max(areas) < 0.37 and max(areas) > 0.33
