"""A user's own annotations: labelme, COCO-style JSON and plain masks give the layout that trains."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.data.files import read_image, read_mask
from fss.data.source import open_source
from fss.recipes import load_config
from tests.data.prepare.test_coco import rectangle
from tests.make import save_mask

H, W = 30, 50


def photo(path, size=(H, W), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    picture.save(path, exif=exif)


def shape(label, kind, points, **more):
    return {"label": label, "shape_type": kind, "points": points, "flags": {}, "group_id": None, **more}


def labelme(folder, name, shapes, size=(H, W), image=None):
    content = {"version": "5.4", "imagePath": image or f"{name}.jpg", "imageData": None,
               "imageHeight": size[0], "imageWidth": size[1], "shapes": shapes}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))


def prepare(root, source, *more):
    return main(["prepare", "folder", "--root", str(root), "--from", str(source), *map(str, more)])


@pytest.fixture
def drawn(tmp_path):
    """Three photos with labelme's files: a under b, every kind of shape, an ignored corner."""
    folder = tmp_path / "labelme"
    for name in "abc":
        photo(folder / f"{name}.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.full((3, 4), True)).save(stamp, "PNG")
    mask = base64.b64encode(stamp.getvalue()).decode()
    labelme(folder, "a", [shape("dog", "rectangle", [[20, 12], [5, 4]]),
                          shape("cat", "polygon", [[10, 6], [15, 6], [15, 9], [10, 9]])])  # fmt: skip
    labelme(folder, "b", [shape("dog", "circle", [[25, 15], [25, 19]]),
                          shape("__ignore__", "rectangle", [[0, 0], [3, 3]]),
                          shape("cat", "mask", [[40, 20], [43, 22]], mask=mask)])  # fmt: skip
    labelme(folder, "c", [shape("bird", "rectangle", [[1, 1], [4, 4]])], image="..\\labelme\\c.jpg")
    return folder


def test_labelme(drawn, tmp_path):
    root = tmp_path / "set"
    assert prepare(root, drawn) == 0
    assert (root / "classes.txt").read_text() == "bird\ncat\ndog\n"
    truth = np.zeros((H, W), np.uint8)
    truth[4:13, 5:21] = 3
    truth[6:10, 10:16] = 2  # drawn later, so on top; labelme's shapes include their border
    assert np.array_equal(read_mask(root / "SegmentationClass/a.png"), truth)
    b = read_mask(root / "SegmentationClass/b.png")
    assert (b[:4, :4] == 255).all() and (b[20:23, 40:44] == 2).all() and (b == 2).sum() == 12
    assert b[15, 25] == b[19, 25] == b[15, 21] == 3 and b[20, 25] == 0
    lists = [set((root / f"ImageSets/Segmentation/{s}.txt").read_text().split()) for s in ("train", "val")]
    assert lists[0] | lists[1] == set("abc") and not lists[0] & lists[1]


def test_what_is_prepared_opens_and_more_can_be_added(drawn, tmp_path, capsys):
    root = tmp_path / "set"
    assert prepare(root, drawn) == 0
    before = {s: (root / f"ImageSets/Segmentation/{s}.txt").read_text().split() for s in ("train", "val")}
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*.png")}
    photo(drawn / "d.jpg")
    labelme(drawn, "d", [shape("ant", "rectangle", [[1, 1], [20, 20]])])
    labelme(drawn, "a", [shape("dog", "rectangle", [[0, 0], [49, 29]])])  # changed
    os.utime(drawn / "a.json", (1e9, 1e9))  # older than its mask, as after unpacking
    assert prepare(root, drawn) == 0
    assert "2 masks made, 2 kept" in capsys.readouterr().out
    assert (root / "classes.txt").read_text().split() == ["bird", "cat", "dog", "ant"]  # numbers stay
    assert (read_mask(root / "SegmentationClass/a.png") == 3).all()
    assert {p: p.stat().st_mtime_ns for p in times if p.stem != "a"} == {
        p: t for p, t in times.items() if p.stem != "a"
    }
    for split, names in before.items():
        assert set(names) <= set((root / f"ImageSets/Segmentation/{split}.txt").read_text().split())
    settings = [f"data.root={root}", "data.folds=2", "data.min_pixels=5"]
    sources = [open_source(load_config("folder", "prototype", settings).data, s) for s in ("train", "val")]
    assert sum(len(s.samples) for s in sources) == 4


def test_coco_style(tmp_path):
    pytest.importorskip("pycocotools", reason="pip install pycocotools")
    photos, root = tmp_path / "photos", tmp_path / "set"
    for name in ("one", "deep/two"):
        photo(photos / f"{name}.jpg")
    images = [
        {"id": i, "file_name": f"{n}.jpg", "height": H, "width": W} for i, n in enumerate(("one", "deep/two"))
    ]
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 7, "segmentation": rectangle(2, 3, 12, 23)},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": rectangle(0, 0, 5, 5)},
    ]
    categories = [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}]
    file = tmp_path / "notes.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    assert prepare(root, file, "--images", photos) == 0
    assert (root / "classes.txt").read_text() == "nut\nbolt\n"
    truth = np.zeros((H, W), np.uint8)
    truth[2:12, 3:23] = 2
    assert np.array_equal(read_mask(root / "SegmentationClass/one.png"), truth)
    assert (read_mask(root / "SegmentationClass/deep_two.png")[:5, :5] == 1).all()


def test_plain_masks(tmp_path):
    masks, photos = tmp_path / "masks", tmp_path / "photos"
    masks.mkdir()
    for n in range(4):
        photo(photos / f"{n}.png")
        mask = np.zeros((H, W), np.uint8)
        mask[n : n + 5] = (1, 3)[n % 2]
        mask[-1] = 255
        save_mask(masks / f"{n}.png", mask)
    assert prepare(tmp_path / "set", masks, "--images", photos) == 0
    assert (tmp_path / "set/classes.txt").read_text() == "class 1\nclass 3\n"
    mask = read_mask(tmp_path / "set/SegmentationClass/1.png")
    assert (mask[1:6] == 2).all() and (mask[-1] == 255).all() and (mask[6:-1] == 0).all()
    (masks / "classes.txt").write_text("red\ngreen\nblue\n")
    assert prepare(tmp_path / "named", masks, "--images", photos) == 0
    assert (tmp_path / "named/classes.txt").read_text() == "red\ngreen\nblue\n"
    assert (read_mask(tmp_path / "named/SegmentationClass/1.png")[1:6] == 3).all()


def test_masks_of_black_and_white_are_one_class(tmp_path):
    mask = np.zeros((H, W), np.uint8)
    mask[5:9] = 255
    (tmp_path / "masks").mkdir()
    for name in "xy":
        photo(tmp_path / f"photos/{name}.jpg")
        Image.fromarray(mask).save(tmp_path / f"masks/{name}.png")
    assert prepare(tmp_path / "set", tmp_path / "masks", "--images", tmp_path / "photos") == 0
    assert (read_mask(tmp_path / "set/SegmentationClass/x.png")[5:9] == 1).all()


def test_photos_that_lie_on_their_side_are_turned_as_annotated(tmp_path):
    folder = tmp_path / "phone"
    photo(folder / "a.jpg", (W, H), orientation=6)  # stored on its side, shown upright by every viewer
    labelme(folder, "a", [shape("dog", "rectangle", [[0, 0], [9, 9]])])
    photo(folder / "b.jpg", orientation=1)
    labelme(folder, "b", [shape("dog", "rectangle", [[0, 0], [9, 9]])])
    root = tmp_path / "set"
    assert prepare(root, folder) == 0
    assert read_image(root / "JPEGImages/a.png").shape == (H, W, 3)
    stored = np.asarray(Image.open(folder / "a.jpg"))
    assert np.array_equal(read_image(root / "JPEGImages/a.png"), np.rot90(stored, -1))
    assert (root / "JPEGImages/b.jpg").read_bytes() == (folder / "b.jpg").read_bytes()


def test_problems_are_named_and_counted(drawn, tmp_path, capsys):
    labelme(drawn, "a", [shape("dog", "point", [[3, 3]])])
    labelme(drawn, "b", [shape("dog", "rectangle", [[3, 3], [W + 20, 9]])])
    (drawn / "x.json").write_text("{}")
    photo(drawn / "y.jpg")
    labelme(drawn, "y", [shape("dog", "rectangle", [[3, 3], [9, 9]])], size=(9, 9))
    labelme(drawn, "z", [shape("dog", "rectangle", [[3, 3], [9, 9]])])
    assert prepare(tmp_path / "set", drawn) == 2
    said, error = capsys.readouterr()
    assert "passed over, since no annotations" in said and "x.json" in said
    for part in (
        "5 problems", "val.txt is empty: 1 images",
        "a.json, shape 0 (dog): a point has no area; allowed: polygon",
        "b.json, shape 0 (dog): reaches 20.0 pixels out of the image (50x30)",
        "y.jpg is 50x30, its annotation 9x9", "z.jpg does not exist",
    ):  # fmt: skip
        assert part in error
    names = "".join((tmp_path / f"set/ImageSets/Segmentation/{s}.txt").read_text() for s in ("train", "val"))
    assert names == "c\n"


def test_lines_whose_masks_are_gone_are_named(drawn, tmp_path, capsys):
    root = tmp_path / "set"
    assert prepare(root, drawn) == 0
    (drawn / "c.json").unlink()
    (root / "SegmentationClass/c.png").unlink()
    capsys.readouterr()
    assert prepare(root, drawn) == 0
    assert "off the lists, since their masks are gone: c (1 in all)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder", "--root", "R"], "prepare folder: say --from, too"),
        (["folder", "--root", "R", "--from", "nowhere"], "no annotations at nowhere"),
        (["folder", "--root", "R", "--from", "EMPTY"], "holds nothing, and no annotations"),
        (["folder", "--root", "R", "--from", "EMPTY", "--images", "EMPTY"], "fss reads masks (PNG"),
        (["folder", "--root", "R", "--from", "EMPTY", "--val", "1.5"], "--val 1.5"),
        (["pascal", "--root", "R", "--from", "x"], "prepare pascal: --from is not for this"),
    ],
)
def test_mistakes(tmp_path, arguments, message, capsys):
    (tmp_path / "empty").mkdir()
    names = {"R": str(tmp_path / "set"), "EMPTY": str(tmp_path / "empty")}
    assert main(["prepare", *(names.get(a, a) for a in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_labelme_may_hold_0_and_1(tmp_path, high):
    photo(tmp_path / "in/a.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.full((21, 21), high, np.uint8)).save(stamp, "PNG")
    mask = base64.b64encode(stamp.getvalue()).decode()
    labelme(tmp_path / "in", "a", [shape("cat", "mask", [[5, 5], [25, 25]], mask=mask)])
    assert prepare(tmp_path / "set", tmp_path / "in") == 2  # one image is too few for two lists
    assert (read_mask(tmp_path / "set/SegmentationClass/a.png") == 1).sum() == 441


def test_a_mask_larger_than_its_box_is_named(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    stamp = io.BytesIO()
    Image.fromarray(np.full((400, 400), 255, np.uint8)).save(stamp, "PNG")
    mask = base64.b64encode(stamp.getvalue()).decode()
    labelme(tmp_path / "in", "a", [shape("cat", "mask", [[5, 5], [25, 25]], mask=mask)])
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    assert "its mask is (400, 400), its box (21, 21)" in capsys.readouterr().err


def test_masks_in_place_are_left_alone(tmp_path, capsys):
    root = tmp_path / "my"
    for name in "ab":
        photo(root / f"JPEGImages/{name}.jpg")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        save_mask(root / f"SegmentationClass/{name}.png", np.full((H, W), 1, np.uint8))
    before = {p: p.read_bytes() for p in root.rglob("*.*")}
    assert prepare(root, root / "SegmentationClass", "--images", root / "JPEGImages") == 2
    assert "lies where it would be written" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in root.rglob("*.*")} == before


def test_other_annotations_add_to_a_root(drawn, tmp_path):
    root, more = tmp_path / "set", tmp_path / "more"
    assert prepare(root, drawn) == 0
    for name in ("m", "n"):
        photo(more / f"{name}.jpg")
        labelme(more, name, [shape("dog", "rectangle", [[0, 0], [9, 9]])])
    before = {s: (root / f"ImageSets/Segmentation/{s}.txt").read_text().split() for s in ("train", "val")}
    own = "JPEGImages/a.jpg SegmentationClass/b.png"
    with (root / "ImageSets/Segmentation/val.txt").open("a") as lines:
        lines.write(own + "\n")
    assert prepare(root, drawn, "--images", tmp_path / "nowhere") == 2  # nothing of this is lost
    assert prepare(root, more) == 0
    after = {s: (root / f"ImageSets/Segmentation/{s}.txt").read_text().splitlines() for s in ("train", "val")}
    after["val"].remove(own)
    assert all(set(before[s]) <= set(after[s]) for s in before)
    assert sorted(after["train"] + after["val"]) == ["a", "b", "c", "m", "n"]


def test_masks_of_background_alone_and_pairs_in_one_folder(tmp_path, capsys):
    place = tmp_path / "both"
    for name in ("a", "b"):
        photo(place / f"{name}.jpg")
        Image.fromarray(np.zeros((H, W), np.uint8)).save(place / f"{name}.png")
    assert prepare(tmp_path / "set", place, "--images", place) == 2
    error = capsys.readouterr().err
    assert "all 2 masks are empty" in error and "Traceback" not in error
    Image.fromarray(np.full((H, W), 255, np.uint8)).save(place / "a.png")
    (place / "classes.txt").write_text("leaf\n")
    assert prepare(tmp_path / "set", place, "--images", place) == 0
    assert (tmp_path / "set/classes.txt").read_text() == "leaf\n"
    assert (tmp_path / "set/JPEGImages/a.jpg").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imageHeight": float("inf")}, "names 0 classes"),
        ({"imagePath": 3}, "a.json: imagePath is 3; wanted"),
        ({"shapes": [{"label": None, "points": []}]}, "shape 0 has no label; wanted"),
        ({"shapes": [shape("a", "mask", [[0, 0], [3, 3]], mask="AAAA")]}, "shape 0 (a)"),
        ({"shapes": [shape("a", "polygon", [["x", 1], [2, 2], [3, 3]])]}, "shape 0 (a)"),
    ],
)
def test_damaged_labelme_files(tmp_path, change, message, capsys):
    photo(tmp_path / "in/a.jpg")
    labelme(tmp_path / "in", "a", [])
    content = json.loads((tmp_path / "in/a.json").read_text()) | change
    (tmp_path / "in/a.json").write_text(json.dumps(content))
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    assert message in capsys.readouterr().err
