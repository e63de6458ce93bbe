"""Pictures: the right colours, half and half, at the right places."""

import numpy as np

from fss.data.files import read_image
from fss.pictures.overlay import BLUE, RED, EpisodePictures, blend, row


def test_blend_is_half_and_half():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[True, False], [False, False]])
    assert blend(image, mask, RED)[0, 0].tolist() == [177, 50, 50]
    assert blend(image, mask, BLUE)[0, 0].tolist() == [50, 50, 177]
    assert (blend(image, mask, RED)[~mask] == 100).all() and (image == 100).all()


def test_row_puts_panels_of_any_size_side_by_side():
    panels = [np.zeros((50, 100, 3), np.uint8), np.full((250, 125, 3), 9, np.uint8)]
    assert row(panels).shape == (250, 500 + 4 + 125, 3)


def test_contact_sheet_of_few_pictures(tmp_path):
    pictures = EpisodePictures(tmp_path / "visualize", None, 97)  # type: ignore[arg-type]
    pictures.clear()
    from fss.pictures.overlay import write_jpeg

    for n, iou in enumerate((5.0, 99.5, 50.0)):
        write_jpeg(
            pictures.folder / f"run0_{n:05d}_big_star_iou{iou:05.1f}.jpg",
            np.full((60, 200, 3), 40 * n, np.uint8),
        )
    sheet = read_image(pictures.contact_sheet())
    assert sheet.shape == (3 * 290, 1800, 3)
    assert sheet[60, 50, 0] == 40  # the best comes first
    pictures.clear()
    assert list(pictures.folder.iterdir()) == []
