"""A whole data set read: everything wrong is named, at once, and a fit set passes."""

import numpy as np
from PIL import Image

from fss.cli import main
from tests.make import make_folder

SETTINGS = ["data.min_pixels=100"]


def check(root, tmp_path, *settings):
    where = [f"data.root={root}", f"output={tmp_path / 'out'}"]
    return main(["check-data", "folder", *where, *SETTINGS, *settings])


def test_a_fit_set_passes_and_has_a_sheet_per_class(tmp_path, capsys):
    assert check(make_folder(tmp_path / "set"), tmp_path) == 0
    out = capsys.readouterr().out
    assert "train: 16 images" in out and "val: 12 images" in out and "no problems found" in out
    assert "masks 16 P; 64x48 to 64x48 px" in out
    sheets = sorted(p.name for p in (tmp_path / "out/folder/check").iterdir())
    assert sheets == [f"0{c}_kind-{c}.jpg" for c in range(1, 5)]


def test_everything_wrong_is_named_at_once(tmp_path, capsys):
    root = make_folder(tmp_path / "set")
    names = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    val = root / "ImageSets/Segmentation/val.txt"
    val.write_text(val.read_text() + names[0] + "\nnowhere\n")
    masks, images = root / "SegmentationClass", root / "JPEGImages"
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(masks / f"{names[1]}.png")
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(masks / f"{names[2]}.png")
    (masks / f"{names[3]}.png").write_bytes(b"no image")
    half = (images / f"{names[4]}.jpg").read_bytes()
    (images / f"{names[4]}.jpg").write_bytes(half[: len(half) // 2])
    assert check(root, tmp_path) == 2
    error = capsys.readouterr().err
    assert "6 problems" in error and "Traceback" not in error
    for part in (
        "nowhere.jpg does not exist", "unknown labels [77]", "is 10x10, its image 64x48",
        f"{names[3]}.png is damaged", f"{names[4]}.jpg is damaged",
            f"1 images are in both lists, train and val: {names[0]}",
    ):  # fmt: skip
        assert part in error


def test_classes_too_small_for_their_fold_are_named(tmp_path, capsys):
    assert check(make_folder(tmp_path / "set"), tmp_path, "--shots", "9") == 2
    assert "fold 0: fewer than 10 test images with 100 pixels of kind 1 (6)" in capsys.readouterr().err


def test_a_set_that_is_not_there(tmp_path, capsys):
    assert check(tmp_path / "gone", tmp_path) == 2
    assert "no data folder" in capsys.readouterr().err
