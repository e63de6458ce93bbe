"""Marks of every kind become the masks that they say, pixel by pixel."""

import numpy as np
import pytest
import torch

from fss.episode import IGNORE
from fss.photos import annotations
from fss.photos.annotations import Support, named, read_support

IMAGE = np.zeros((20, 30, 3), np.uint8)
CPU = torch.device("cpu")


def masks_of(marks, kind, name=None, image=IMAGE):
    return read_support(Support(image, marks, name, kind), "drawn", 0, CPU, False).masks


def strokes():
    """Strokes of background and of classes 3 and 5."""
    marks = np.full((20, 30), 255, np.uint8)
    marks[2, 3:20], marks[5, 3:9], marks[9, 4:22] = 0, 3, 5
    return marks


def test_boxes_hold_their_first_and_their_last_pixels():
    wanted = np.zeros((20, 30), np.uint8)
    wanted[2:7, 4:10] = 1
    assert (masks_of((4, 2, 9, 6), "box")["1"] == wanted).all()
    wanted[19, 29] = 1
    assert (masks_of([(4, 2, 9, 6), (29, 19, 29, 19)], "box", "cat")["cat"] == wanted).all()


def test_background_strokes_say_background_and_those_of_other_classes_too():
    found = masks_of(strokes(), "scribble")
    assert found.keys() == {"3", "5"}
    for label, mask in found.items():
        assert (mask == np.where(strokes() == 255, 255, strokes() == int(label))).all()


def test_strokes_of_a_named_class_are_all_its_own():
    (mask,) = masks_of(strokes(), "scribble", "cat").values()
    assert (mask == np.where(strokes() == 255, 255, strokes() > 0)).all()


def test_points_of_background_stay():
    mask = masks_of([(5, 5, 1), (20, 15, 0)], "points")["1"]
    assert mask[5, 5] == 1 and mask[15, 20] == 0 and mask[10, 12] == IGNORE


@pytest.mark.parametrize("name", [None, "cat"])
def test_masks_keep_what_is_ignored(name):
    marks = np.zeros((20, 30), np.uint8)
    marks[3:9, 3:9], marks[3, 3:9] = 7, 255
    (mask,) = masks_of(marks, "mask", name).values()
    assert (mask == np.where(marks == 255, 255, marks > 0)).all()


def test_large_photos_are_made_smaller_before_strokes_become_masks(monkeypatch):
    monkeypatch.setattr(annotations, "LONGEST", 15)
    marks = np.full((20, 30), 255, np.uint8)
    marks[4:8, 4:8], marks[14:, :] = 1, 0
    found = read_support(Support(IMAGE, marks, None, "scribble"), "drawn", 0, CPU, False)
    assert found.image.shape == (10, 15, 3) and found.masks["1"].shape == (10, 15)
    assert found.masks["1"][3, 3] == 1 and found.masks["1"][8, 8] == 0


def test_names_are_stripped_and_missing_ones_stay_missing():
    mask = np.ones((20, 30), np.uint8)
    assert [s.name for s in named([Support(IMAGE, mask, " cat ")])] == ["cat"]
    assert named([Support(IMAGE, mask)])[0].name is None
