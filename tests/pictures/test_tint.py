"""Masks over photos: the photo stays visible inside, and the edge shows on whatever colour."""

import numpy as np
import pytest

from fss.pictures.marks import palette
from fss.pictures.tint import BLUE, RED, tint, tint_mask

MASK = np.zeros((60, 80), bool)
MASK[20:40, 30:60] = True
INSIDE, FAR = np.s_[21:39, 31:59], np.ones((60, 80), bool)  # within the line, beyond the contour
FAR[19:41, 29:61] = False


def plain(colour, size=(60, 80)):
    return np.full((*size, 3), colour, np.uint8)


def test_the_photo_shows_through_and_stays_as_it_is_elsewhere():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    given = image.copy()
    out = tint_mask(image, MASK, RED)
    assert np.abs(out[INSIDE] - (0.7 * image[INSIDE] + 0.3 * np.array(RED))).max() <= 1
    assert (out[FAR] == image[FAR]).all() and (image == given).all()
    assert (tint_mask(image, MASK & False, RED) == image).all()


@pytest.mark.parametrize("colour", [RED, BLUE, (255, 230, 0), (0, 0, 0), (255, 255, 255), (128, 128, 128)])
@pytest.mark.parametrize("photo", [RED, BLUE, (255, 230, 0), (0, 0, 0), (255, 255, 255), (128, 128, 128)])
def test_an_edge_shows_on_a_photo_of_any_colour(photo, colour):
    out = tint_mask(plain(photo), MASK, colour).astype(int)
    own, around = out[30, 30], out[30, 29]
    assert tuple(own) == colour
    assert max(np.abs(own - photo).max(), np.abs(around - photo).max()) > 100
    assert np.abs(own - around).max() > 100


def test_lines_are_a_pixel_for_400_of_the_photo():
    for side, wide in ((80, 1), (400, 1), (800, 2), (1600, 4)):
        mask = np.zeros((side // 2, side), np.uint8)
        mask[:, side // 2 :] = 1
        middle = tint(plain((100, 100, 100), mask.shape), mask, np.array([(0, 0, 0), BLUE], np.uint8))[
            side // 4
        ]
        assert (middle == BLUE).all(1).sum() == wide and (middle == 255).all(1).sum() == wide
        assert (middle[side // 2 :][:wide] == BLUE).all() and (middle[: side // 2][-wide:] == 255).all()


def test_two_masks_that_meet_have_each_their_own_line():
    labels = np.repeat(np.array([2, 1, 0], np.uint8), 20)[None].repeat(60, 0)
    colours = palette()
    line = tint(plain((100, 100, 100), labels.shape), labels, colours)[30]
    assert (line[19] == colours[2]).all() and (line[20] == colours[1]).all()
    assert (line[39] == colours[1]).all() and len(set(line[40])) == 1 and (line[41:] == 100).all()
