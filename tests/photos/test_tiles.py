"""Squares for small objects: when, how large, and which of a support's."""

import numpy as np
import pytest

import fss
from fss.errors import UserError
from fss.photos.tiles import check_tile, crops, joined, object_side, share_of
from tests.photos.test_predict import NETWORK, scene


def mask(*boxes, size=(200, 300)):
    out = np.zeros(size, np.uint8)
    for y, x, side in boxes:
        out[y : y + side, x : x + side] = 1
    return out


def test_the_usual_object_is_the_one_in_the_middle_by_area():
    assert object_side(mask((10, 10, 60), (100, 100, 5), (150, 150, 5))) == 60
    assert object_side(mask((10, 10, 20), (100, 100, 20), (150, 150, 20))) == 20


def test_large_objects_are_looked_at_in_whole_photos_and_small_ones_in_squares():
    assert share_of([mask((50, 50, 60))], 300) is None
    assert share_of([mask((50, 50, 24))], 300) == pytest.approx(24 / 64)
    assert share_of([mask((50, 50, 3))], 300) == 0.2  # no smaller squares than a fifth
    assert share_of([mask((50, 50, 24)), mask((9, 9, 60)), mask((9, 9, 60))], 300) is None  # the usual photo


def test_crops_hold_every_object_and_lie_in_the_photo():
    there = mask((0, 0, 10), (20, 20, 10), (190, 290, 10))
    found = crops(there, 60, 4)
    assert len(found) == 2
    covered = np.zeros_like(there)
    for top, left, bottom, right in found:
        assert 0 <= top < bottom <= 200 and 0 <= left < right <= 300 and bottom - top == right - left == 60
        covered[top:bottom, left:right] = 1
    assert (covered[there == 1] == 1).all()
    assert len(crops(there, 60, 1)) == 1


def test_tiles_join_without_seams():
    """Tiles that say the same of the same pixel join to exactly that; those that differ, gradually."""
    image = np.random.default_rng(0).random((130, 170, 3)).astype(np.float32)
    assert np.abs(joined(image, 64, lambda part: part[None, ..., 0])[0] - image[..., 0]).max() < 1e-5
    levels = iter(range(100))
    steps = joined(image, 64, lambda part: np.full((1, *part.shape[:2]), next(levels), np.float32))[0]
    assert np.abs(np.diff(steps[0])).max() < 0.35  # ramps: neighbours differ by 1 over some 20 pixels


def test_small_objects_bring_tiles_by_themselves():
    image, truth = scene((100, 300), (400, 400))
    image[truth == 1] = (10, 130, 30)
    small = mask((200, 60, 12), size=(400, 400))
    image[small == 1] = (230, 20, 30)
    other, there = image[::-1].copy(), small[::-1].copy()
    predictor = fss.Predictor(settings=NETWORK, size=129)
    by_itself = predictor.learn([fss.Support(image, small, "x")])
    assert by_itself.tile_shares == {"x": pytest.approx(0.2)} and by_itself.tiled
    seen = []
    found = by_itself(other, lambda done, every: seen.append(every)).labels() > 0
    assert seen and (found & (there == 1)).sum() / (found | (there == 1)).sum() > 0.4
    assert not predictor.learn([fss.Support(image, small, "x")], tile=None).tiled


@pytest.mark.parametrize("tile", [8, "whole", 2.5, True])
def test_wrong_tiles_say_what_is_allowed(tile):
    with pytest.raises(UserError, match="allowed: auto, or whole numbers from 32"):
        check_tile(tile)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_tile_gives_way_gradually_to_its_neighbour_on_every_side(axis):
    """Two tiles overlap by some 20 pixels: the way from 0 to 1 takes them all."""
    image = np.zeros((100, 64, 3) if axis == 0 else (64, 100, 3), np.float32)
    levels = iter(range(4))
    found = joined(image, 64, lambda part: np.full((1, *part.shape[:2]), next(levels), np.float32))[0]
    line = found[:, 30] if axis == 0 else found[30]
    assert np.allclose(found, line[:, None] if axis == 0 else line)
    assert line[0] == 0 and line[35] == 0 and line[64] == 1 and line[-1] == 1
    steps = np.diff(line)
    assert (steps >= 0).all() and steps.max() < 0.12 and line[49:51].mean() == pytest.approx(0.5, abs=0.02)
