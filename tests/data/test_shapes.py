"""The set that the project draws itself."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fss.data.shapes import CLASSES, draw_shapes
from fss.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "set"
    draw_shapes(root, seed=3, train=40, val=20)
    return root


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _masks(root: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((root / "SegmentationClass").iterdir())]


def test_voc_layout(drawn: Path) -> None:
    names = (drawn / "ImageSets/Segmentation/val.txt").read_text().split()
    assert names == [f"val_{n:04d}" for n in range(20)]
    assert (drawn / "classes.txt").read_text().split() == list(CLASSES)
    image = Image.open(drawn / f"JPEGImages/{names[0]}.jpg")
    mask = Image.open(drawn / f"SegmentationClass/{names[0]}.png")
    assert (image.mode, mask.mode, image.size, mask.size) == ("RGB", "P", (128, 128), (128, 128))
    palette = mask.getpalette() or []
    assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0] and palette[-3:] == [224, 224, 192]
    assert sorted(path.name for path in drawn.parent.iterdir()) == ["set"]  # nothing left beside it


def test_masks_show_every_class_large_enough_within_a_border(drawn: Path) -> None:
    kernel, found = np.ones((3, 3), np.uint8), set()
    for mask in _masks(drawn):
        counts = np.bincount(mask.ravel(), minlength=256)
        labels = set(np.flatnonzero(counts)) - {0, 255}
        assert labels and labels <= set(range(1, 21)) and counts[list(labels)].min() >= 300
        for label in labels:  # a label touches itself and the border, nothing else
            beside = cv2.dilate((mask == label).astype(np.uint8), kernel) > 0
            assert set(np.unique(mask[beside])) <= {label, 255}
        found |= labels
    assert found == set(range(1, 21))


def test_an_image_depends_on_seed_split_and_number_alone(drawn: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "same", seed=3, train=10, val=5)
    draw_shapes(tmp_path / "other", seed=4, train=10, val=5)
    reference, same, other = (_contents(root) for root in (drawn, tmp_path / "same", tmp_path / "other"))
    pictures = [name for name in same if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 30
    assert all(same[name] == reference[name] for name in pictures)
    assert not any(other[name] == reference[name] for name in pictures)
    assert same["JPEGImages/train_0000.jpg"] != same["JPEGImages/val_0000.jpg"]


def test_a_complete_set_is_kept(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    draw_shapes(drawn, seed=3, train=40, val=20)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_another_or_a_broken_set_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw_shapes(root, train=2, val=1)
    with pytest.raises(UserError, match=r"'train': 2.*'train': 3.*data\.root"):
        draw_shapes(root, train=3, val=1)
    (root / "JPEGImages/train_0001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 files missing.*train_0001\.jpg"):
        draw_shapes(root, train=2, val=1)
    (root / "shapes.json").unlink()
    with pytest.raises(UserError, match=r"no readable shapes\.json"):
        draw_shapes(root, train=2, val=1)
    assert (root / "JPEGImages/train_0000.jpg").is_file()


@pytest.mark.parametrize("values", [{"seed": -1}, {"train": 0}, {"val": 0}, {"size": 64}])
def test_values_out_of_range(tmp_path: Path, values: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        draw_shapes(tmp_path / "set", **values)
    assert not list(tmp_path.iterdir())
