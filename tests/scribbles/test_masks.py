"""Marks to masks, by every method: what was drawn holds, and no method returns nothing."""

import numpy as np
import pytest

from fss.episode import IGNORE
from fss.errors import UserError
from fss.scribbles import masks
from fss.scribbles.clustering import Clustering
from fss.scribbles.masks import MaskMaker
from fss.scribbles.strokes import KINDS, simulate
from tests.scribbles.test_clustering import picture

QUICK = Clustering(channels=12, steps=40)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["clustering", "grabcut"])
def test_an_easy_picture(kind, method):
    image, _, disc = picture()
    marks = simulate(disc.astype(np.uint8), kind, np.random.default_rng(0))
    maker = MaskMaker(kind, method, QUICK)
    found = maker.make(image, marks, seed=0)
    assert (found == maker.make(image, marks, seed=0)).all()
    assert (found[marks != IGNORE] == marks[marks != IGNORE]).all()
    inter, union = ((found == 1) & disc).sum(), ((found == 1) | disc).sum()
    assert inter / union > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_as_drawn(kind):
    image, _, disc = picture()
    marks = simulate(disc.astype(np.uint8), kind, np.random.default_rng(0))
    found = MaskMaker(kind, "drawn").make(image, marks, seed=0)
    wanted = (marks == IGNORE) if kind == "box" else marks
    assert (found == wanted).all()


@pytest.mark.parametrize("method", ["clustering", "grabcut"])
@pytest.mark.parametrize("kind", ["scribble", "box"])
def test_a_picture_of_one_colour_is_no_obstacle(kind, method):
    image = np.full((32, 32, 3), 90, np.uint8)
    marks = np.full((32, 32), IGNORE if kind == "scribble" else 0, np.uint8)
    marks[10:12, 10:20] = 1 if kind == "scribble" else IGNORE
    found = MaskMaker(kind, method, QUICK).make(image, marks, seed=0)
    assert (found[10:12, 10:20] == 1).any()


@pytest.mark.parametrize("method", ["clustering", "grabcut"])
def test_a_box_of_the_whole_image_and_a_single_click(method):
    image, _, _ = picture()
    marks = np.full(image.shape[:2], IGNORE, np.uint8)
    assert MaskMaker("box", method, QUICK).make(image, marks, seed=0).shape == marks.shape
    marks[20, 30] = 1
    assert MaskMaker("points", method, QUICK).make(image, marks, seed=0)[20, 30] == 1


def test_marks_of_another_size():
    image, scribble, _ = picture()
    with pytest.raises(UserError, match="draw on an image of its size"):
        MaskMaker("scribble", "grabcut").make(image, np.where(scribble == 3, 1, scribble)[1:], seed=0)


@pytest.mark.parametrize("kind", ["scribble", "points", "box"])
@pytest.mark.parametrize("answer", [0, 1])
def test_what_was_drawn_holds_against_a_method_that_thinks_otherwise(monkeypatch, kind, answer):
    """Clusters that call everything object, or everything background, change what is not marked alone."""
    monkeypatch.setattr(masks, "cluster", lambda image, marks, *_: np.full(marks.shape, answer))
    marks = np.full((20, 30), 255 if kind != "box" else 0, np.uint8)
    marks[4:8, 5:12] = 1 if kind != "box" else 255
    if kind != "box":
        marks[15, 3:25] = 0
    found = MaskMaker(kind, "clustering").make(np.zeros((20, 30, 3), np.uint8), marks, seed=0)
    wanted = np.where(marks == IGNORE, answer, marks)
    if kind == "box":  # of which nothing is left: it is filled
        wanted = np.where(marks == IGNORE, 1, 0)
    assert (found == wanted).all()
