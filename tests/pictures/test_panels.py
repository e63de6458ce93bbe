"""Maps over images: the right colour in the right place, for whole numbers, heat and dots."""

import numpy as np
import torch

from fss.heads import Panel
from fss.pictures.panels import COLOURS, draw_panel

SIZE, TITLE = 97, 22  # pixels: the canvas, the strip above a panel
IMAGE = np.full((72, 96, 3), 100, np.uint8)  # the canvas is padded below and to the right


def drawn(panel, supports=()):
    return draw_panel(panel, IMAGE, supports, SIZE)


def test_whole_numbers_are_colours_and_minus_one_is_none():
    values = torch.full((13, 13), -1)
    values[2, 5] = 3
    (picture,) = drawn(Panel("which", values, "query"))
    assert picture.shape == (3 * 72 + TITLE, 3 * 96, 3)  # zoomed to 200 pixels or more
    centre = picture[TITLE + 3 * 16, 3 * 40]  # cell (2,5) spans 8 pixels around pixel (16,40)
    assert np.abs(centre - (0.4 * 100 + 0.6 * COLOURS[3])).max() <= 1
    assert (picture[TITLE + 3 * 40, 3 * 40] == 100).all()


def test_heat_runs_from_low_to_high():
    (picture,) = drawn(Panel("how much", torch.linspace(0, 1, 13).expand(13, 13), "query"))
    row = picture[TITLE + 90].astype(int)
    assert row[5, 2] > row[5, 0] and row[-5, 0] > row[-5, 2]  # blue at 0, red at 1


def test_dots_lie_where_the_points_are_and_nan_is_none():
    points = torch.tensor([[[4.0, 6.0], [float("nan"), 0.0]]])
    panel = Panel("seeds", torch.full((1, 13, 13), -1), "support", points)
    (picture,) = drawn(panel, [IMAGE])
    assert (picture[TITLE + 3 * 32, 3 * 48] == 255).all()
    assert (picture[TITLE:] == 255).all(2).sum() < 100


def test_a_panel_over_supports_gives_one_picture_each():
    panel = Panel("which", torch.zeros(2, 13, 13, dtype=torch.int64), "support")
    assert len(drawn(panel, [IMAGE, IMAGE])) == 2


def test_one_episode_of_a_batch():
    panel = Panel("which", torch.arange(2)[:, None, None].expand(2, 13, 13), "query")
    assert (panel.of(1).values == 1).all() and panel.of(1).points is None
