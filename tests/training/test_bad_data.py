"""What is wrong with data or settings, met on the command line: code 2, and the culprit is named."""

import re

import numpy as np
import pytest

from fss.backbones.resnet import ResNet
from fss.cli import main
from tests.make import TINY, make_folder, save_mask


def missing_list(root):
    (root / "ImageSets/Segmentation/train.txt").unlink()


def missing_image(root):
    (root / "JPEGImages/2007_000003.jpg").unlink()


def mask_of_another_size(root):
    save_mask(root / "SegmentationClass/2007_000003.png", np.zeros((48, 65), np.uint8))


def unknown_label(root):
    save_mask(root / "SegmentationClass/2007_000003.png", np.full((48, 64), 77, np.uint8))


def unreadable_jpeg(root):
    path = root / "JPEGImages/2007_000003.jpg"
    path.write_bytes(b"no picture" * 50)


def truncated_jpeg(root):
    path = root / "JPEGImages/2007_000003.jpg"
    path.write_bytes(path.read_bytes()[:-100])


def no_classes(root):
    (root / "classes.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (missing_list, [], r"no list ImageSets/Segmentation/train\.txt"),
        (missing_image, [], r"train\.txt line 4: image .*2007_000003\.jpg does not exist"),
        (mask_of_another_size, [], r"2007_000003\.png is 65x48, its image 64x48"),
        (unknown_label, [], r"2007_000003\.png has unknown labels \[77\]; allowed: 0\.\.4 and 255"),
        (unreadable_jpeg, [], r"2007_000003\.jpg is damaged or of an unknown format"),
        (truncated_jpeg, [], r"2007_000003\.jpg is damaged"),
        (no_classes, [], r"classes\.txt is missing"),
        (None, ["data.sise=97"], "unknown key data.sise, did you mean size"),
        (None, ["data.fold=9"], "fold 9 does not exist; allowed: 0..3"),
        (None, ["data.size=16"], "data.size: allowed: 17 or more"),
        (None, ["data.size=20"], "data.size=20: ResNet18 takes multiples of 16 from 32 on; nearest: 32"),
        (None, ["data.size=48", "pretrain.crop=50"], "pretrain.crop=50: ResNet18 takes .*; nearest: 48, 64"),
        (None, ["data.folds=5"], "4 classes, which cannot make data.folds=5"),
        (None, ["train.shots=30"], "too few images for 30 shots"),
    ],
)
def test_code_2_and_the_culprit(damage, settings, message, tmp_path, capsys, monkeypatch):
    if any(s.startswith(("data.size", "pretrain.crop")) for s in settings):  # as of a network of patches
        monkeypatch.setattr(ResNet, "multiple", 16)
    root = make_folder(tmp_path / "set")
    if damage:
        damage(root)
    arguments = ["train", "--data", "folder", f"data.root={root}", f"output={tmp_path}/out", *TINY]
    assert main([*arguments, *settings]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and "Traceback" not in err
    assert not list(tmp_path.glob("out/**/*.part"))
