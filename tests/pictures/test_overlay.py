"""Pictures of episodes: panels side by side, and the contact sheet with its legend."""

import numpy as np
from PIL import Image

from fss.data.canvas import Canvas
from fss.data.files import read_image
from fss.data.lists import Sample
from fss.photos.prediction import COLOURS, overlay
from fss.pictures.contact import contact_page
from fss.pictures.marks import CYAN, YELLOW
from fss.pictures.overlay import EpisodePictures, class_sheet, row, write_jpeg
from fss.pictures.tint import BLUE, RED, tint


def test_row_puts_panels_of_any_size_side_by_side():
    panels = [np.zeros((50, 100, 3), np.uint8), np.full((250, 125, 3), 9, np.uint8)]
    assert row(panels).shape == (250, 500 + 4 + 125, 3)


def some_pictures(folder, count=3, size=(60, 200)):
    """Grey pictures of episodes, the worst first: 0, 40, 80, ..."""
    paths = [folder / f"run0_{n:05d}_big_star_iou{10 * n:05.1f}.jpg" for n in range(count)]
    for n, path in enumerate(paths):
        write_jpeg(path, np.full((*size, 3), 40 * n % 256, np.uint8))
    return paths


def test_contact_sheet_of_few_pictures(tmp_path):
    pictures = EpisodePictures(tmp_path / "visualize", None, Canvas(97))  # type: ignore[arg-type]
    pictures.clear()
    some_pictures(pictures.folder)
    sheet = read_image(pictures.contact_sheet())
    line = round(60 * 592 / 200) + 28  # a picture fills its place, and has a line of text below
    assert sheet.shape == (44 + 30 + line, 1800, 3)  # each of them once
    assert [sheet[84, 600 * n + 50, 0] for n in range(3)] == [80, 40, 0]  # the best comes first
    pictures.clear()
    assert list(pictures.folder.iterdir()) == []


def test_contact_sheet_tells_its_columns_and_colours(tmp_path):
    paths = some_pictures(tmp_path)
    told, marked = contact_page(paths)[:44].astype(int), contact_page(paths, marked=True)[:44].astype(int)

    def swatches(colour):
        """How many stretches of the legend have a colour."""
        columns = (marked == colour).all(2).any(0)
        return (np.diff(np.flatnonzero(columns)) > 60).sum() + columns.any()

    assert swatches(RED) == 2 and swatches(BLUE) == 1  # true masks, the prediction
    assert swatches(YELLOW) == swatches(CYAN) == 1
    assert (told[:, :1300] == marked[:, :1300]).all() and (told[:, 1300:] == 255).all()


def test_a_row_of_the_contact_sheet_is_as_high_as_its_pictures(tmp_path):
    low, high = contact_page(some_pictures(tmp_path, size=(40, 400))), contact_page(some_pictures(tmp_path))
    assert low.shape[0] < high.shape[0] - 60


def test_of_many_pictures_the_sheet_shows_the_best_the_median_and_the_worst(tmp_path):
    line = round(60 * 592 / 200) + 28
    assert contact_page(some_pictures(tmp_path, 36)).shape[0] == 44 + 30 + 12 * line
    assert contact_page(some_pictures(tmp_path, 37)).shape[0] == 44 + 3 * (30 + 4 * line)


def test_class_sheets_and_photos_are_drawn_alike(tmp_path):
    image, mask = np.full((150, 200, 3), RED, np.uint8), np.zeros((150, 200), np.uint8)
    mask[40:110, 50:150] = 1
    Image.fromarray(image).save(tmp_path / "red.png")
    Image.fromarray(mask).save(tmp_path / "red_mask.png")
    class_sheet(tmp_path / "sheet.jpg", [Sample("red", tmp_path, ("red.png", "red_mask.png"))], 1)
    sheet = read_image(tmp_path / "sheet.jpg").astype(int)
    assert sheet[75, 49].min() > 100 > sheet[75, 55].min()  # the white line outside, on red
    drawn = overlay(image, mask, ["thing"])
    assert (drawn == tint(image, mask, COLOURS)).all() and (drawn[75, 49] == 255).all()
