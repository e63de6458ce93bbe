"""Both ways to the canvas against the authors' numbers, and the way back."""

import numpy as np
import pytest
import torch

from fss.data.canvas import Canvas, fit, fit_mask, fitted_size, nearest
from fss.ops import normalise
from tests.conftest import relative_error


@pytest.mark.parametrize("name", ["eval_resize_37x50", "eval_resize_61x44"])
def test_padding_matches_the_authors(fixture_numbers, name):
    data = fixture_numbers(name)
    size = int(data["size"])
    assert relative_error(fit(data["image"], size), data["out_image"]) < 1e-4
    assert np.array_equal(fit_mask(data["label"], size), data["out_label"])


def test_order_of_operations_in_the_size():
    assert fitted_size(375, 500, 473) == (352, 472)
    assert fitted_size(500, 375, 473) == (472, 352)
    # Every size up to 700 px: the formula in words, with the multiplication where the protocol has it.
    for b in range(1, 700):
        assert fitted_size(700, b, 473)[1] == max(int(b * (473 / 700)) // 8 * 8, 8)


def test_a_thin_photo_keeps_one_row_of_cells():
    assert fitted_size(1, 400, 65) == (8, 64) and fitted_size(400, 1, 65) == (64, 8)
    assert fitted_size(65, 65, 65) == (64, 64) and fitted_size(100, 15, 100) == (96, 8)
    assert fit_mask(np.ones((1, 400), np.uint8), 65)[:9, 0].tolist() == [1] * 8 + [255]


@pytest.mark.parametrize("name", ["squash_resize_61x44", "squash_resize_150x200"])
def test_squashing_matches_the_authors(fixture_numbers, name):
    data = fixture_numbers(name)
    canvas = Canvas(int(data["size"]), "squash")
    image, label = canvas.image(data["image"]), canvas.mask(data["label"])
    assert image.dtype == label.dtype == np.uint8
    assert np.array_equal(image, data["resized_image"]) and np.array_equal(label, data["resized_label"])
    assert np.array_equal((label == int(data["class_value"])) & (label != 255), data["mask"] == 1)
    assert np.array_equal(label == 255, data["ignore"] == 1)
    normal = normalise(torch.from_numpy(image).movedim(-1, 0)).numpy()[:, ::4, ::4]
    assert relative_error(normal, data["normalised_every4"]) < 1e-6
    floats = canvas.image(data["image"].astype(np.float32))
    assert floats.dtype == np.float32 and np.array_equal(floats, image)


@pytest.mark.parametrize("shape", [(37, 50), (50, 37), (120, 90)])
def test_stretching_looks_at_four_pixels_and_rounds_bytes_alone(shape):
    random = np.random.default_rng(0)
    image, labels = random.integers(0, 256, (*shape, 3), np.uint8), random.integers(0, 256, shape, np.uint8)
    canvas = Canvas(65, "stretch")
    floats = canvas.image(image.astype(np.float32))
    x = torch.from_numpy(image.astype(np.float32)).movedim(-1, 0)[None]
    wanted = torch.nn.functional.interpolate(x, size=(65, 65), mode="bilinear", align_corners=False)
    assert np.allclose(floats, wanted[0].movedim(0, -1).numpy(), atol=0.01) and floats.dtype == np.float32
    rounded = canvas.image(image)
    assert rounded.dtype == np.uint8 and np.abs(rounded - floats).max() <= 1.01
    assert np.abs(Canvas(65, "squash").image(image).astype(float) - floats).max() > 5 or min(shape) < 65
    mask = canvas.mask(labels)
    # As OpenCV has it, in doubles: a product that is whole but for rounding may fall to the pixel before.
    rows, columns = (np.floor(np.arange(65) * (1 / (65 / side))).astype(int) for side in shape)
    assert mask.dtype == np.uint8 and np.array_equal(mask, labels[rows[:, None], columns])


def test_the_nearest_pixel_by_ratio_and_product_of_single_precision():
    """As torch's `nearest`, whose results are compared for every side of a photo."""
    for before in range(1, 641):
        rows = torch.arange(before, dtype=torch.float32)[None, None]
        wanted = torch.nn.functional.interpolate(rows, size=400, mode="nearest")[0, 0]
        assert nearest(before, 400).tolist() == wanted.tolist()
    double = np.floor(np.arange(400) * (520 / 400)).astype(int)
    assert (nearest(520, 400) != double).any()  # where precision decides


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (41, 41)])
def test_what_a_photo_fills_and_the_way_back(shape):
    labels = torch.ones(shape, dtype=torch.uint8)
    padded, squashed, stretched = Canvas(65), Canvas(65, "squash"), Canvas(65, "stretch")
    h, w = padded.filled(*shape)
    on = padded.mask(labels.numpy())
    assert (on[:h, :w] == 1).all() and (on == 1).sum() == h * w < 65 * 65
    assert padded.framed(labels).shape == (max(shape), max(shape))
    assert (padded.framed(labels) == 1).sum() == labels.sum()
    for canvas in (squashed, stretched):
        assert canvas.filled(*shape) == (65, 65) and (canvas.mask(labels.numpy()) == 1).all()
        assert canvas.framed(labels) is labels
