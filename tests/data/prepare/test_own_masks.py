"""Folders of masks as people have them: `prepare` and the loaders check what `predict` checks."""

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.data.files import count_mask, read_mask
from fss.errors import UserError
from tests.data.prepare.test_folder import H, W, photo, prepare

DISK = np.zeros((H, W), np.uint8)
DISK[8:20, 10:30] = 1


def put(path, values, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **more)


def names(root):
    return sorted(p.stem for p in (root / "SegmentationClass").glob("*.png"))


@pytest.fixture
def pairs(tmp_path):
    for name in "pqrs":
        photo(tmp_path / f"img/{name}.jpg")
        put(tmp_path / f"m/{name}.png", DISK * 255)
    return tmp_path


def prepared(tmp_path):
    return prepare(tmp_path / "set", tmp_path / "m", "--images", tmp_path / "img")


def test_one_mask_with_smooth_edges_spoils_no_other(pairs, capsys):
    import cv2

    put(pairs / "m/s.png", cv2.GaussianBlur(DISK * 255, (0, 0), 0.6))
    assert prepared(pairs) == 2
    error = capsys.readouterr().err
    assert "s.png has" in error and "without smooth edges" in error
    assert (pairs / "set/classes.txt").read_text() == "class 1\n" and names(pairs / "set") == ["p", "q", "r"]
    assert np.array_equal(read_mask(pairs / "set/SegmentationClass/p.png"), DISK)


def test_a_black_and_white_mask_among_labels_is_named(pairs, capsys):
    for name in "pqr":
        put(pairs / f"m/{name}.png", DISK * 2)
    assert prepared(pairs) == 2
    error = capsys.readouterr().err
    assert "s.png is black and white, others hold labels" in error and names(pairs / "set") == ["p", "q", "r"]


@pytest.mark.parametrize("suffix", ["PNG", "bmp", "tif", "jpg", "gif"])
def test_masks_of_every_suffix_are_read_or_named(pairs, suffix, capsys):
    (pairs / "m/s.png").unlink()
    put(pairs / f"m/s.{suffix}", DISK * 255)
    kept = suffix in ("PNG", "bmp", "tif")
    assert prepared(pairs) == (0 if kept else 2)
    assert names(pairs / "set") == ["p", "q", "r"] + ["s"] * kept
    assert kept or f"s.{suffix}" in capsys.readouterr().err


@pytest.mark.parametrize("white_first", [True, False])
def test_palettes_of_black_and_white(pairs, white_first):
    for name in "pqrs":
        picture = Image.fromarray(1 - DISK if white_first else DISK)
        picture.putpalette([255, 255, 255, 0, 0, 0] if white_first else [0, 0, 0, 255, 255, 255])
        picture.save(pairs / f"m/{name}.png")
    assert prepared(pairs) == 0
    assert np.array_equal(read_mask(pairs / "set/SegmentationClass/p.png"), DISK)


def test_a_palette_the_other_way_round_is_refused_by_the_loaders(tmp_path):
    picture = Image.fromarray(1 - DISK)
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "m.png")
    for read in (read_mask, count_mask):
        with pytest.raises(UserError, match="shows label 0 white and 1 black"):
            read(tmp_path / "m.png")


def test_colours_and_alpha_are_named(pairs, capsys):
    put(pairs / "m/r.png", np.dstack([DISK * 255, DISK, DISK]))
    put(pairs / "m/s.png", np.dstack([DISK * 0 + 255] * 3 + [DISK * 255]))
    assert prepared(pairs) == 2
    error = capsys.readouterr().err
    assert "r.png has colours" in error and "s.png is drawn in its alpha channel" in error


def test_masks_named_after_their_photos_beside_them(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / f"both/sub/{name}.png")
        put(tmp_path / f"both/sub/{name}_mask.png", DISK)
    assert prepare(tmp_path / "set", tmp_path / "both") == 0
    assert names(tmp_path / "set") == ["sub_cat", "sub_dog"]


def test_photos_alone_are_no_masks(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    assert "no picture is the mask of another" in capsys.readouterr().err


def test_roboflows_table_of_classes(pairs):
    for name in "pqrs":
        put(pairs / f"m/{name}.png", DISK * 2)
    (pairs / "m/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    assert prepared(pairs) == 0
    assert (pairs / "set/classes.txt").read_text() == "cat\ndog\n"
    assert (read_mask(pairs / "set/SegmentationClass/p.png")[DISK > 0] == 2).all()


@pytest.mark.parametrize("first", ["_background_", "Background", "__ignore__"])
def test_a_class_that_is_none_is_refused_with_its_line(pairs, first, capsys):
    (pairs / "m/classes.txt").write_text(f"{first}\ncat\n")
    assert prepared(pairs) == 2
    assert f"classes.txt line 1: '{first}' is no class" in capsys.readouterr().err
    assert not (pairs / "set").exists()


def layout(root, value):
    for i in range(6):
        photo(root / f"JPEGImages/p{i}.jpg")
        put(root / f"SegmentationClass/p{i}.png", DISK * value)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, numbers in (("train", range(3)), ("val", range(3, 6))):
        (lists / f"{split}.txt").write_text("".join(f"p{i}\n" for i in numbers))
    (root / "classes.txt").write_text("cat\n")


SETTINGS = ["data.folds=1", "data.min_pixels=5"]


def test_white_objects_in_the_layout_are_named_as_the_cause(tmp_path, monkeypatch, capsys):
    layout(tmp_path / "set", 255)
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", "folder", "data.root=set", *SETTINGS]) == 2
    assert "val: 3 of 3 masks hold 0 and 255 alone" in capsys.readouterr().err
    test = ["test", "--data", "folder", "--head", "votes", "--gpus", "cpu", "data.root=set", *SETTINGS]
    assert main(test) == 2
    assert "3 of 3 masks hold 0 and 255 alone" in capsys.readouterr().err


def test_a_set_of_one_class_is_checked_and_tested_as_a_whole(tmp_path, monkeypatch, capsys):
    layout(tmp_path / "set", 1)
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", "folder", "data.root=set", "data.fold=-1", "data.min_pixels=5"]) == 0
    assert "fold -1" in capsys.readouterr().out
    (tmp_path / "some.pt").write_bytes(b"x")
    test = ["test", "--data", "folder", "data.root=set", "data.fold=-1", "data.min_pixels=10"]
    assert main([*test, "--checkpoint", "some.pt", "--gpus", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "some.pt" in error and "data.folds" not in error


def test_masks_named_after_the_photos_file(pairs):
    for name in "pqrs":
        (pairs / f"m/{name}.png").rename(pairs / f"m/{name}.jpg.png")
    assert prepared(pairs) == 0 and names(pairs / "set") == ["p", "q", "r", "s"]


def test_masks_without_background_are_remarked_on(pairs, capsys):
    for name in "pqrs":
        put(pairs / f"m/{name}.png", DISK + 1)
    assert prepared(pairs) == 0
    assert "no mask has a pixel of 0, the background" in capsys.readouterr().out


def test_empty_masks_and_pages_are_told(pairs, capsys):
    (pairs / "m/s.png").unlink()
    pages = {"save_all": True, "append_images": [Image.fromarray(DISK)]}
    put(pairs / "m/s.tif", DISK * 0, **pages)
    for name in "pqr":
        put(pairs / f"m/{name}.png", DISK * 0)
    assert prepared(pairs) == 2
    assert "all 3 masks are empty, 0 throughout" in capsys.readouterr().err
    put(pairs / "m/p.png", DISK)
    assert prepared(pairs) == 2 and names(pairs / "set") == ["p", "q", "r"]
    assert "s.tif has 2 pages; save one alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "refused"),
    [("0 background\n1 leaf\n", True), ("1: leaf\n", True), ("1\tleaf\n", True), ("1 euro\n2 euro\n", False)],
)
def test_classes_with_numbers_before_them(pairs, text, refused, capsys):
    (pairs / "m/classes.txt").write_text(text)
    assert prepared(pairs) == (2 if refused else 0)
    assert ("its lines begin with numbers" in capsys.readouterr().err) == refused


def test_the_loader_refuses_lossy_masks_by_content(tmp_path):
    put(tmp_path / "a.png", DISK, format="JPEG")
    for read in (read_mask, count_mask):
        with pytest.raises(UserError, match="is a JPEG file, which may alter labels"):
            read(tmp_path / "a.png")
