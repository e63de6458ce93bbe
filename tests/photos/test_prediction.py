"""A segmented photo by numbers: odds that are enlarged, fused, drawn and written."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fss.errors import UserError
from fss.photos.prediction import COLOURS, Prediction, check_threshold, enlarge, overlay, values_of

SIZE = (12, 20)


def found(odds, classes):
    """A prediction whose odds are of the photo's own size."""
    return Prediction(np.full((*SIZE, 3), (200, 90, 20), np.uint8), classes, np.asarray(odds, np.float32))


def bands(*values):
    """Odds (12,20) in upright bands of equal width."""
    return np.repeat(np.array([values]), SIZE[1] // len(values), 1).repeat(SIZE[0], 0)


def test_probabilities_are_those_of_the_odds():
    one = found([bands(-3, 0, 0.5, 4)], ["a"]).probability()
    assert one[0, ::5] == pytest.approx([0.047426, 0.5, 0.622459, 0.982014], abs=1e-5)
    assert one.shape == SIZE and one.dtype == np.float32


def test_the_likeliest_wins_where_it_passes_the_threshold():
    pair = found([bands(-1, 1, 2, 0.4), bands(-2, 3, 1, 0.3)], ["a", "b"])
    assert pair.labels()[5, ::5].tolist() == [0, 2, 1, 1]
    assert pair.labels(0.6)[5, ::5].tolist() == [0, 2, 1, 0]  # log-odds of 0.6 are 0.405
    assert pair.labels(0.2)[5, ::5].tolist() == [1, 2, 1, 1]
    assert pair.labels(0.9)[5, ::5].tolist() == [0, 2, 0, 0]  # of 0.9: 2.197
    equal = found([bands(0, 1), bands(0, 1)], ["a", "b"])  # as likely as not is not likelier
    assert equal.labels()[5, ::10].tolist() == [0, 1]


def test_labels_are_the_names_where_these_are_labels():
    assert values_of(["7", "254"]) == [7, 254]
    for names in (["7", "255"], ["0", "7"], ["7", "cat"], ["7", "-1"], ["7", "²"]):
        assert values_of(names) == [1, 2], names
    assert found([bands(1, -1)], ["9"]).labels()[0, ::10].tolist() == [9, 0]


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.1, float("nan")])
def test_thresholds_are_probabilities(threshold):
    with pytest.raises(UserError, match="allowed: above 0 and below 1"):
        check_threshold(threshold)
    with pytest.raises(UserError, match="allowed: above 0 and below 1"):
        found([bands(0, 1)], ["a"]).labels(threshold)


def test_what_is_written_is_what_was_found(tmp_path):
    pair = found([bands(-1, 3, 2, 0.4), bands(-2, 1, 4, 0.3)], ["red ones", "b"])
    paths = pair.save(tmp_path / "new", "x", 0.6)
    assert [p.name for p in paths] == ["x_labels.png", "x_overlay.jpg", "x_mask_red-ones.png",
        "x_probability_red-ones.png", "x_mask_b.png", "x_probability_b.png"]  # fmt: skip
    read = {p.name: Image.open(p) for p in paths}
    labels = np.array(read["x_labels.png"])
    assert (labels == pair.labels(0.6)).all() and read["x_labels.png"].mode == "P"
    assert read["x_labels.png"].getpalette()[:9] == COLOURS[:3].flatten().tolist()
    for number, name in enumerate(("red-ones", "b")):
        assert (np.array(read[f"x_mask_{name}.png"]) == 255 * (labels == number + 1)).all()
        share = np.array(read[f"x_probability_{name}.png"]) / 255
        assert np.abs(share - pair.probability(number)).max() <= 0.5 / 255 + 1e-6
    picture = np.array(read["x_overlay.jpg"]).astype(int)
    assert np.abs(picture[:, 0] - (200, 90, 20)).max() < 12  # a JPEG, whose red and blue are not swapped
    assert np.abs(picture - pair.overlay(0.6)).mean() < 25


def test_the_first_colours_are_black_and_blue():
    assert COLOURS[0].tolist() == [0, 0, 0] and COLOURS[1].tolist() == [0, 90, 255]


def test_odds_at_network_size_are_enlarged_evenly():
    ramp = np.linspace(-1, 1, 5, dtype=np.float32)[None].repeat(3, 0)
    large = enlarge(ramp, (12, 20))
    assert large.shape == (12, 20) and np.allclose(large, large[:1]) and (np.diff(large[0]) >= 0).all()
    assert large[0, 9:11].mean() == pytest.approx(0, abs=1e-6) and large[0, 0] == -1 and large[0, -1] == 1
    assert enlarge(ramp, (3, 5)) is ramp


def test_names_stand_at_the_left_where_there_are_several_classes():
    image, labels = np.full((600, 800, 3), 90, np.uint8), np.zeros((600, 800), np.uint8)
    assert (overlay(image, labels, ["a"]) == image).all()  # nothing found, nothing to tell apart
    drawn = overlay(image, labels, ["first", "second", "кот"])
    changed = (drawn != image).any(2)
    rows = np.flatnonzero(changed[:, :38].any(1))
    starts = [rows[0], *(b for a, b in pairwise(rows) if b - a > 1)]
    assert starts == [12, 52, 92]  # letters of 600 / 24 pixels, 1.6 times that from line to line
    for row, value in zip(starts, (1, 2, 3), strict=True):
        assert changed[row : row + 26, 12:38].all()  # a square in white, filled with the class's colour
        assert (drawn[row, 12:38] == 255).all() and drawn[row + 12, 25].tolist() == COLOURS[value].tolist()
        letters = np.flatnonzero(changed[row - 5 : row + 33, 46:120].any(1)) - 5  # its name, or "class 3"
        assert (
            abs(letters[0] + letters[-1] - 25) < 6
        )  # as high as the square, and its middle beside its middle
    assert not changed[130:].any() and not changed[:, 260:].any()
    small = overlay(np.full((40, 60, 3), 90, np.uint8), np.zeros((40, 60), np.uint8), list("abcdefgh"))
    rows = np.flatnonzero((small != 90).any(2)[:, :16].any(1))
    assert rows.tolist() == [*range(5, 16), *range(21, 32)]  # letters of 10 pixels; as many as fit whole
