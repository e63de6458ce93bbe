"""Marks of every kind become the masks that they say, pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss.episode import IGNORE
from fss.errors import UserError
from fss.photos import annotations
from fss.photos.annotations import Support, as_photo, named, read_support

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


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 19), (0, 0, 29, 20), (-1, 0, 3, 3), (0, -1, 3, 3), (4, 2, 3, 6), (4, 6, 9, 5)]
)
def test_boxes_that_leave_the_photo_or_end_before_they_begin_are_told(box):
    with pytest.raises(UserError, match="allowed: left,top,right,bottom within 0,0 and 29,19"):
        masks_of(box, "box")
    assert (masks_of((0, 0, 29, 19), "box")["1"] == 1).all()  # the whole photo is one


@pytest.mark.parametrize(("marks", "kind", "message"), [
    ([], "box", "no box is given"),
    ([(3, 3, -1)], "points", "point 3,3 has label -1; allowed: 0 to 254"),
    ([(3, 3, 255)], "points", "point 3,3 has label 255; allowed: 0 to 254"),
    ([(3, 3)], "points", "has 3 whole numbers"),
    (np.ones((19, 30), np.uint8), "scribble", "the scribble is 30x19, the image 30x20"),
    (np.ones((20, 30)), "mask", "marks must be"),
    (np.ones((20, 30, 1), np.uint8), "mask", "marks must be"),
    (np.ones((20, 30), np.uint8), "lasso", "support kind 'lasso'; allowed: mask, scribble, box, points"),
])  # fmt: skip
def test_marks_that_say_nothing_are_told(marks, kind, message):
    with pytest.raises(UserError, match=message):
        masks_of(marks, kind)


def test_a_photo_is_a_file_or_an_array_of_one_pixel_or_more(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "i.png")
    for path in (tmp_path / "i.png", str(tmp_path / "i.png")):
        assert (as_photo(path) == IMAGE).all()
    assert as_photo(IMAGE[:1, :1]).shape == (1, 1, 3)
    for wrong in (IMAGE[:0], IMAGE[:, :0], IMAGE[..., :2], IMAGE[..., 0], IMAGE.astype(np.int16)):
        with pytest.raises(UserError, match=r"an image must be \(H,W,3\) uint8 RGB"):
            as_photo(wrong)


def test_all_supports_name_a_class_or_none_does():
    mask = np.ones((20, 30), np.uint8)
    with pytest.raises(UserError, match="has no class name, others have; name the class of all supports"):
        named([Support(IMAGE, mask, "cat"), Support(IMAGE, mask)])
    with pytest.raises(UserError, match="no support: give at least one image"):
        named([])
    assert len(named([Support(IMAGE, mask)] * 2)) == len(named([Support(IMAGE, mask, "cat")] * 2)) == 2
