"""Offsets as pictures: arrows point to where values came from, colours tell the direction."""

import numpy as np
import pytest
import torch

from fss.heads import Panel
from fss.pictures.offsets import draw_offsets
from fss.pictures.overlay import rows
from fss.pictures.panels import draw_panel

GREY = np.full((240, 320, 3), 100, np.uint8)


def field(x, y):
    return np.broadcast_to(np.array([x, y], float), (240, 320, 2)).copy()


def test_opposite_directions_have_opposite_colours():
    picture, rim = draw_offsets(GREY, field(3, 0))
    red, green, blue = picture[30, 30].astype(int)
    assert rim == pytest.approx(3) and red > 150 and green < 60 and blue < 60
    red, green, blue = draw_offsets(GREY, field(-3, 0))[0][30, 30].astype(int)
    assert red < 60 and green > 150 and blue > 150


def test_arrows_point_along_the_offsets():
    dark = (draw_offsets(GREY, field(0, 2))[0] < 20).all(2)
    rows_, columns = np.nonzero(dark[:40, :27])  # the first arrow
    assert np.ptp(rows_) > 10 and np.ptp(columns) <= 20
    spread = [np.ptp(columns[rows_ == r]) for r in sorted(set(rows_))]
    assert np.argmax(spread) > len(spread) / 2  # the tip is below


def test_no_offset_is_white_and_has_no_arrows():
    picture, rim = draw_offsets(GREY, field(0, 0))
    assert rim == 0 and (picture[30, 30] == 193).all()


def test_a_panel_of_offsets_is_measured_in_pixels_of_the_canvas():
    offsets = torch.zeros(13, 13, 2)
    offsets[..., 0] = 0.5  # cells of 8 pixels
    (picture,) = draw_panel(Panel("onto stage1", offsets, "query"), GREY[:96, :96], [], 97)
    said = Panel("onto stage1, rim 4.0 px", torch.zeros(13, 13), "query")
    (title,) = draw_panel(said, GREY[:96, :96], [], 97)
    assert np.array_equal(picture[:22], title[:22]) and picture[60, 60, 0] > picture[60, 60, 2] + 100


def test_many_panels_go_into_several_rows():
    made = rows([np.zeros((200, 100, 3), np.uint8)] * 8)
    assert made.shape == (2 * 200 + 4, 6 * 104 - 4, 3) and (made[-10, 220:] == 255).all()
