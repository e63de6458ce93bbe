"""PASCAL from miniature archives in the official formats: masks, lists, a stop in between, and damage."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fss.cli import main
from fss.data.files import read_mask
from fss.data.lists import read_list
from tests.make import save_mask

TRAIN, VAL = ["2007_000001", "2007_000002"], ["2007_000003"]
SBD = {"train": ["2007_000001", "2008_000010"], "val": ["2008_000011", "2007_000003"]}
NO_VAL = ["2007_000001", "2008_000010", "2008_000012"]


def labels(name, value):
    """A label map with a square of one class, and 255 at its border where VOC draws it."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 255 if value > 100 else value
    mask[6:14, 6:14] = value % 100
    return mask


@pytest.fixture
def archives(tmp_path):
    """VOC 2012 below VOCdevkit/, SBD as its archive unpacks; image n has class n in VOC, n + 5 in SBD."""
    voc, sbd = tmp_path / "raw/VOCdevkit/VOC2012", tmp_path / "raw/sbd/benchmark_RELEASE/dataset"
    for folder in (
        voc / "JPEGImages",
        voc / "SegmentationClass",
        voc / "ImageSets/Segmentation",
        sbd / "cls",
    ):
        folder.mkdir(parents=True)
    for split, names in (("train", TRAIN), ("val", VAL)):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
    for split, names in ({**SBD, "train_noval": NO_VAL}).items():
        (sbd / f"{split}.txt").write_text("\n".join(names) + "\n")
    for name in {*TRAIN, *VAL, *SBD["train"], *SBD["val"], *NO_VAL}:
        number = int(name[-2:])
        Image.fromarray(np.full((20, 30, 3), 9 * number, np.uint8)).save(voc / f"JPEGImages/{name}.jpg")
        if name in {*TRAIN, *VAL}:
            save_mask(voc / f"SegmentationClass/{name}.png", labels(name, 100 + number))
        content = {"Segmentation": labels(name, number + 5), "CategoriesPresent": np.array([number + 5])}
        savemat(sbd / f"cls/{name}.mat", {"GTcls": content}, do_compression=True)
    return tmp_path / "raw"


def prepare(archives, lists, *more):
    return main(["prepare", "pascal", "--root", str(archives), "--lists", str(lists), *more])


def test_masks_are_vocs_where_it_has_one_and_sbds_elsewhere(archives, tmp_path, capsys):
    assert prepare(archives, tmp_path / "lists") == 0
    root = archives / "VOCdevkit/VOC2012"
    masks = {p.stem: read_mask(p) for p in (root / "SegmentationClassAug").iterdir()}
    assert masks.keys() == {*TRAIN, *VAL, "2008_000010", "2008_000011", "2008_000012"}
    for name in [*TRAIN, *VAL]:
        assert np.array_equal(masks[name], labels(name, 100 + int(name[-2:])))
    for name in ("2008_000010", "2008_000011", "2008_000012"):
        assert np.array_equal(masks[name], labels(name, int(name[-2:]) + 5))
    assert f"data.root={root}" in capsys.readouterr().out


def test_lists_are_the_published_unions(archives, tmp_path):
    assert prepare(archives, tmp_path / "lists") == 0
    root = archives / "VOCdevkit/VOC2012"
    names = {
        s: [x.name for x in read_list(tmp_path / f"lists/{s}.txt", root)]
        for s in ("train", "val", "trainaug")
    }
    assert names["train"] == [*TRAIN, "2008_000010", "2008_000012"]
    assert names["val"] == VAL
    assert names["trainaug"] == [*TRAIN, "2008_000010", "2008_000011"]  # SBD's, without VOC's val


def test_a_second_run_keeps_what_is_there_and_makes_the_rest(archives, tmp_path, capsys):
    assert prepare(archives, tmp_path / "lists") == 0
    folder = archives / "VOCdevkit/VOC2012/SegmentationClassAug"
    (folder / "2008_000010.png").unlink()
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    capsys.readouterr()
    assert prepare(archives, tmp_path / "lists") == 0
    assert "1 masks made, 5 kept" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(list(folder.iterdir())) == 6


def test_damage_is_named_and_counted_at_the_end(archives, tmp_path, capsys):
    sbd = archives / "sbd/benchmark_RELEASE/dataset/cls"
    (sbd / "2008_000010.mat").write_bytes((sbd / "2008_000010.mat").read_bytes()[:100])
    savemat(sbd / "2008_000011.mat", {"GTcls": {"Segmentation": np.full((4, 4), 77, np.uint8)}})
    (archives / "VOCdevkit/VOC2012/JPEGImages/2008_000012.jpg").unlink()
    assert prepare(archives, tmp_path / "lists") == 2
    error = capsys.readouterr().err
    assert "3 problems; what they name is left out" in error and "2008_000010.mat is damaged" in error
    assert "2008_000011.mat is no label map of 0..20 and 255" in error
    assert "2008_000012.jpg does not exist" in error
    assert len(list((archives / "VOCdevkit/VOC2012/SegmentationClassAug").iterdir())) == 3
    names = (tmp_path / "lists/trainaug.txt").read_text()
    assert "2007_000001" in names and "2008_000010" not in names  # lists hold what can be used


def test_a_truncated_photo_is_named(archives, tmp_path, capsys):
    photo = archives / "VOCdevkit/VOC2012/JPEGImages/2008_000012.jpg"
    photo.write_bytes(photo.read_bytes()[:-10])
    assert prepare(archives, tmp_path / "lists") == 2
    error = capsys.readouterr().err
    assert "1 problems" in error and "2008_000012.jpg is damaged: it breaks off" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pascal", "--root", "nowhere"], "no JPEGImages/ in nowhere"),
        (["pascal", "--root", "VOC"], "no cls/ in"),
        (["cityscapes", "--root", "VOC"], "cannot prepare 'cityscapes'; allowed: pascal"),
    ],
)
def test_missing_archives_say_what_to_do(archives, arguments, message, capsys):
    names = {"VOC": str(archives / "VOCdevkit/VOC2012")}
    assert main(["prepare", *(names.get(a, a) for a in arguments)]) == 2
    assert message in capsys.readouterr().err
