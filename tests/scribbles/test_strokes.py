"""Simulated annotation: on the right side of every edge, never on ignored pixels, repeatable."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.episode import IGNORE
from fss.errors import UserError
from fss.scribbles.strokes import object_parts, points_marks, simulate


def blobs(seed, h=60, w=80):
    """A mask of random discs with a border of ignored pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    gap = np.min(
        [
            np.hypot(y - random.integers(h), x - random.integers(w)) - random.integers(0, 25)
            for _ in range(random.integers(1, 4))
        ],
        0,
    )
    mask = (gap <= 0).astype(np.uint8)
    mask[(gap > 0) & (gap < 2)] = IGNORE
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["scribble", "points"]))
def test_marks_lie_inside_and_never_on_ignored_pixels(seed, kind):
    mask = blobs(seed)
    marks = simulate(mask, kind, np.random.default_rng(seed))
    drawn = marks != IGNORE
    assert (marks[drawn] == mask[drawn]).all()  # 0 on background, 1 on the object, nothing on 255
    assert (marks == 1).any()
    assert all((marks[part] == 1).any() for part in object_parts(mask == 1))
    assert (simulate(mask, kind, np.random.default_rng(seed)) == marks).all()


def test_strokes_differ_by_seed_and_follow_the_object():
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 20:180] = 1
    first, other = (simulate(mask, "scribble", np.random.default_rng(s)) for s in (0, 1))
    assert (first != other).any()
    columns = np.flatnonzero((first == 1).any(0))
    assert 60 < columns.max() - columns.min() < 160  # most of its length
    background = np.argwhere(first == 0)
    assert len({(y < 50, x < 100) for y, x in background}) == 4  # a stroke in each quarter
    assert (first != IGNORE).mean() < 0.1


def test_a_box_is_tight_round_each_part():
    mask = np.zeros((40, 50), np.uint8)
    mask[5:15, 5:20], mask[20:30, 30:45], mask[38, 48] = 1, 1, 1  # the last is too small to be boxed
    mask[4, 5:20] = IGNORE
    marks = simulate(mask, "box", np.random.default_rng(0))
    inside = np.zeros_like(mask, bool)
    inside[5:15, 5:20] = inside[20:30, 30:45] = True
    assert (marks[inside] == IGNORE).all() and (marks[~inside] == 0).all()


@pytest.mark.parametrize("kind", ["scribble", "box", "points"])
def test_extremes(kind):
    one = np.zeros((20, 30), np.uint8)
    one[7, 9] = 1
    full = np.ones((20, 30), np.uint8)
    for mask in (one, full):
        marks = simulate(mask, kind, np.random.default_rng(0))
        drawn = marks != IGNORE
        assert (marks[drawn] == mask[drawn]).all() or kind == "box"
    with pytest.raises(ValueError, match="without object"):
        simulate(np.zeros((20, 30), np.uint8), kind, np.random.default_rng(0))


def test_points_as_given():
    marks = points_marks([(5, 4, 2), (0, 0, 0)], (10, 20))
    assert marks[4, 5] == 2 and marks[0, 0] == 0 and marks[9, 19] == IGNORE
    with pytest.raises(UserError, match="point 20,4 is outside of the image; allowed: 0,0 to 19,9"):
        points_marks([(20, 4, 1)], (10, 20))


def test_equally_deep_places_stay_equal_however_distances_are_rounded(monkeypatch):
    """OpenCV's distances vary in their last bit: noise of that size must not move a stroke."""
    exact, noise = cv2.distanceTransform, np.random.default_rng(0)

    def noisy(*arguments):
        found = exact(*arguments)
        return (found * (1 + 1e-6 * noise.standard_normal(found.shape))).astype(np.float32)

    monkeypatch.setattr(cv2, "distanceTransform", noisy)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:70] = 1  # many places at exactly 0.6 of the greatest depth, 20: at 12
    for kind in ("scribble", "points"):
        outcomes = {simulate(mask, kind, np.random.default_rng(5)).tobytes() for _ in range(50)}
        assert len(outcomes) == 1, kind


@pytest.mark.parametrize("kind", ["scribble", "points"])
def test_object_and_background_are_both_marked(kind):
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 20:180] = 1
    marks = simulate(mask, kind, np.random.default_rng(0))
    assert (marks == 1).any() and len({(y < 50, x < 100) for y, x in np.argwhere(marks == 0)}) == 4
