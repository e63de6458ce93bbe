"""What the brush left in the browser, as marks and supports at the photo's size."""

from pathlib import Path

import numpy as np
import pytest

from fss.demo.drawing import red_box, shrunk, strokes, support
from fss.errors import UserError

RED, BLUE = (255, 59, 48), (10, 132, 255)


def layer(size, *boxes):
    """(h,w,4) with boxes (colour, alpha, slice) of paint."""
    out = np.zeros((*size, 4), np.uint8)
    for colour, alpha, where in boxes:
        out[where] = (*colour, alpha)
    return out


def test_red_is_the_object_blue_background_and_the_rest_unknown():
    painted = layer((4, 6), (RED, 255, np.s_[1:3, 1:3]), (BLUE, 255, np.s_[:, 5:]))
    want = np.full((4, 6), 255, np.uint8)
    want[1:3, 1:3], want[:, 5] = 1, 0
    assert (strokes([painted], (4, 6)) == want).all()


def test_upper_layers_cover_lower_ones_and_thin_paint_does_not_count():
    lower = layer((4, 4), (RED, 255, np.s_[:, :]))
    upper = layer((4, 4), (BLUE, 255, np.s_[:2]), (BLUE, 100, np.s_[2:]))
    assert (strokes([lower, upper], (4, 4)) == np.repeat([[0], [0], [1], [1]], 4, 1)).all()


def test_marks_have_the_photos_own_size():
    painted = layer((30, 40), (RED, 255, np.s_[10:20, 10:30]))
    marks = strokes([painted], (300, 400))
    assert marks.shape == (300, 400)
    assert (marks[102:198, 102:298] == 1).all() and (marks == 1).sum() == pytest.approx(100 * 200, rel=0.05)


def test_no_layers_are_no_marks():
    assert (strokes([], (3, 5)) == 255).all()


def test_shrunk_keeps_shape_and_small_pictures():
    assert shrunk(np.zeros((600, 1200, 3), np.uint8), 300).shape == (150, 300, 3)
    assert shrunk(np.zeros((600, 1200), np.float32), 300).shape == (150, 300)
    assert shrunk(np.zeros((1, 5000, 3), np.uint8), 300).shape == (1, 300, 3)
    small = np.zeros((30, 20, 3), np.uint8)
    assert shrunk(small, 300) is small


def test_each_way_to_mark():
    drawn = np.full((20, 30), 255, np.uint8)
    drawn[5:10, 8:21], drawn[0] = 1, 0
    photo = Path("cup.jpg")
    paint = support(photo, "paint", " cup ", drawn, None)
    assert (paint.kind, paint.name) == ("mask", "cup") and (paint.marks == (drawn == 1)).all()
    scribble = support(photo, "scribble", "", drawn, None)
    assert (scribble.kind, scribble.name) == ("scribble", "object") and (scribble.marks == drawn).all()
    box = support(photo, "box", "cup", drawn, None)
    assert (box.kind, box.marks) == ("box", (8, 5, 20, 9)) == ("box", red_box(drawn))
    file = support(photo, "file", "cup", drawn, Path("mask.png"))
    assert (file.kind, file.marks) == ("mask", Path("mask.png"))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("paint", "paint over"),
        ("scribble", "draw a line on"),
        ("box", "line across"),
        ("file", "no mask file"),
    ],
)
def test_nothing_marked_is_said(way, message):
    blue = np.zeros((4, 4), np.uint8)
    with pytest.raises(UserError, match=rf"cup\.jpg: .*{message}"):
        support(Path("photos/cup.jpg"), way, "cup", blue, None)
