"""Reading: palettes keep their indices, and what is broken is named."""

import numpy as np
import pytest
from PIL import Image

from fss.data.files import read_image, read_mask
from fss.errors import UserError
from tests.make import save_mask


def test_palette_and_grey_masks_load_alike(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_mask(tmp_path / "palette.png", mask)
    Image.fromarray(mask).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png"), mask)
    assert np.array_equal(read_mask(tmp_path / "grey.png"), mask)


def test_colour_mask_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match="mode RGB"):
        read_mask(tmp_path / "rgb.png")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_jpeg_is_refused(tmp_path, keep):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(path)
    assert read_image(path).shape == (40, 40, 3)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="damaged"):
        read_image(path)


def test_missing_files_are_named(tmp_path):
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match="nowhere"):
            read(tmp_path / "nowhere.png")


def test_truncated_mask_is_refused(tmp_path):
    path = tmp_path / "m.png"
    save_mask(path, np.random.default_rng(0).integers(0, 20, (50, 50)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="damaged"):
        read_mask(path)
