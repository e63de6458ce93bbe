"""Saliency maps: found, checked, scaled; and drawn for the synthetic set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fss.data.files import read_mask
from fss.data.image_labels import open_labelled_images
from fss.data.saliency import draw_saliency, find_saliency, read_saliency
from fss.data.shapes import draw_shapes
from fss.errors import UserError
from fss.recipes import load_config
from tests.make import make_folder


@pytest.fixture
def place(tmp_path):
    """A folder set, its data configuration and training images, and an empty folder of maps."""
    root = make_folder(tmp_path / "set")
    config = load_config("folder", "cwt", [f"data.root={root}"]).data
    (root / "maps").mkdir()
    return config, open_labelled_images(config, "train").samples, root / "maps"


def save(folder, name, array):
    Image.fromarray(array).save(folder / f"{name}.png")


def test_some_may_miss(place):
    config, samples, maps = place
    for sample in samples[::2]:
        save(maps, sample.name, np.full((48, 64), 100, np.uint8))
    found = find_saliency(config, Path("maps"), samples)
    assert [path is not None for path in found] == [True, False] * 8


def test_divided_by_their_maximum(tmp_path):
    save(tmp_path, "a", np.array([[0, 50, 100]], np.uint8))
    save(tmp_path, "b", np.zeros((1, 3), np.uint8))
    assert read_saliency(tmp_path / "a.png").tolist() == [[0, 0.5, 1]]
    assert read_saliency(tmp_path / "b.png").tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((48, 65), np.uint8), r"2007_000003\.png is 65x48, its image .*2007_000003\.jpg 64x48"),
        (None, r"no map for any image, such as 2007_000000\.png"),
        (b"no picture", r"2007_000003\.png is damaged"),
    ],
)
def test_mistakes_name_the_map(place, array, message):
    config, samples, maps = place
    if isinstance(array, bytes):
        (maps / f"{samples[3].name}.png").write_bytes(array)
    elif array is not None:
        save(maps, samples[3].name, array)
    with pytest.raises(UserError, match=message):
        find_saliency(config, Path("maps"), samples)


def test_no_folder_and_colours(place, tmp_path):
    config, samples, _ = place
    with pytest.raises(UserError, match=r"pseudo\.saliency=nowhere: no such folder"):
        find_saliency(config, Path("nowhere"), samples)
    save(tmp_path, "a", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png has mode RGB; wanted one grey channel"):
        read_saliency(tmp_path / "a.png")


def test_drawn_for_shapes_bright_on_objects_and_imperfect(tmp_path):
    root = tmp_path / "shapes"
    draw_shapes(root, train=30, val=2)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    draw_saliency(root)
    assert all(p.read_bytes() == content for p, content in before.items())
    on, off, missed = [], [], 0
    for path in sorted((root / "Saliency").glob("*.png")):
        grey, mask = np.asarray(Image.open(path)), read_mask(root / "SegmentationClass" / path.name)
        assert grey.shape == mask.shape and len(np.unique(grey)) > 10
        inner = cv2.erode((mask > 0).astype(np.uint8), np.ones((9, 9))) > 0
        labels = [label for label in np.unique(mask) if 0 < label < 255 and (inner & (mask == label)).any()]
        means = [grey[inner & (mask == label)].mean() for label in labels]
        missed += sum(mean < 60 for mean in means)
        on += means
        off.append(grey[mask == 0].mean())
    assert len(off) == 32 and np.mean(on) > 150 > 40 > np.mean(off) > 0.5 and 0 < missed < len(on) / 4
    first = (root / "Saliency/train_0003.png").read_bytes()
    (root / "Saliency").rename(tmp_path / "old")
    draw_saliency(root)
    assert (root / "Saliency/train_0003.png").read_bytes() == first
