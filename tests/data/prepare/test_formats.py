"""Annotations of other programs give the masks that their users drew; what cannot be read is named."""

import base64
import io
import json
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.data.files import read_mask
from tests.data.prepare.test_folder import H, W, labelme, photo, prepare, shape

OUTLINE = [[4, 5], [30, 5], [30, 20], [4, 20]]
AREA = 27 * 16  # pixels that it covers, its border included


def masks_of(root):
    return {p.stem: read_mask(p) for p in (root / "SegmentationClass").glob("*.png")}


def prepared(tmp_path, source, *more, code=0):
    assert prepare(tmp_path / "set", source, *more) == code
    return masks_of(tmp_path / "set")


def classes(tmp_path):
    return (tmp_path / "set/classes.txt").read_text().split("\n")[:-1]


def cvat(folder, *images):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f'<image id="{i}" name="{n}" width="{W}" height="{H}">{inner}</image>'
        for i, (n, inner) in enumerate(images)
    )
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{text}</annotations>")


POINTS = 'points="4,5;30,5;30,20;4,20" z_order="0"'


def test_cvat(tmp_path, capsys):
    folder = tmp_path / "job"
    for name in "abc":
        photo(folder / f"images/{name}.jpg")
    cvat(
        folder,
        (
            "a.jpg",
            f'<box label="dog" xtl="0" ytl="0" xbr="9" ybr="9" z_order="1"/><polygon label="cat" {POINTS}/>',
        ),
        ("b.jpg", '<mask label="cat" rle="1, 2, 3" left="10" top="12" width="3" height="2"/>'),
        ("c.jpg", '<ellipse label="dog" cx="20" cy="15" rx="9" ry="4" rotation="90"/>'),
        ("empty.jpg", ""),
    )
    found = prepared(tmp_path, folder)
    assert "recognised CVAT's format" in capsys.readouterr().out and classes(tmp_path) == ["cat", "dog"]
    assert (found["a"] == 2).sum() == 100 and (found["a"] == 1).sum() == AREA - 6 * 5  # the box lies on top
    assert np.argwhere(found["b"] == 1).tolist() == [[12, 11], [12, 12]]
    tall = np.argwhere(found["c"] == 2)
    assert tall.min(0).tolist() == [6, 16] and abs(tall.max(0) - 24).max() <= 1


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ('<polyline label="cat" points="1,1;2,2"/>', "a polyline has no area; allowed: polygon"),
        ('<mask label="cat" rle="1,2" left="0" top="0" width="3" height="2"/>', "its runs add up to 3"),
        ('<box label="cat" xtl="x" ytl="0" xbr="9" ybr="9"/>', 'xtl is "x"; wanted a number'),
        ('<polygon points="1,1;2,2;3,3"/>', "has no label; wanted a class's name"),
        ('<polygon label="cat" points="1,1;2,2"/>', "a polygon needs 3 points or more, got 2"),
    ],
)
def test_shapes_of_cvat_that_cannot_be_drawn(tmp_path, inner, message, capsys):
    for name in "ab":
        photo(tmp_path / f"job/{name}.jpg")
    cvat(tmp_path / "job", ("a.jpg", inner), ("b.jpg", f'<polygon label="cat" {POINTS}/>'))
    assert set(prepared(tmp_path, tmp_path / "job", code=2)) == {"b"}
    error = capsys.readouterr().err
    assert message in error and "a.jpg" in error


def test_tracks_of_a_video_are_refused(tmp_path, capsys):
    (tmp_path / "job").mkdir()
    (tmp_path / "job/a.xml").write_text("<annotations><track id='0' label='cat'/></annotations>")
    assert prepare(tmp_path / "set", tmp_path / "job") == 2
    assert 'export it from CVAT as "CVAT for images 1.1"' in capsys.readouterr().err


@pytest.mark.parametrize("names", ["data.yaml", "classes.txt"])
def test_yolo(tmp_path, names, capsys):
    root = tmp_path / "yolo"
    for name in ("x", "deep/y"):
        photo(root / f"images/{name}.jpg")
        (root / f"labels/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "labels/x.txt").write_text("1 .08 .16667 .6 .16667 .6 .66667 .08 .66667\n")
    (root / "labels/deep/y.txt").write_text("0 0 0 .2 0 .2 .2\n\n")
    text = "names: {0: cat, 1: dog}\n" if names == "data.yaml" else "cat\ndog\n"
    (root / names).write_text(text)
    found = prepared(tmp_path, root)
    assert "recognised YOLO's format" in capsys.readouterr().out and classes(tmp_path) == ["cat", "dog"]
    assert (found["x"] == 2).sum() == AREA and found["deep_y"][0, 0] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .2 .2", "it is a box, which is no mask; draw its outline"),
        ("7 0 0 .2 0 .2 .2", "class 7; there are 0 to 0: cat"),
        ("0 4 5 30 5 30 20", "wanted pairs x y, in shares"),
        ("0 0 0 .2 0 .2", "it is a box"),
        ("0 a b", "wanted a class's number"),
    ],
)
def test_lines_of_yolo_that_cannot_be_drawn(tmp_path, line, message, capsys):
    root = tmp_path / "yolo"
    for name, text in (("x", line), ("y", "0 0 0 .2 0 .2 .2")):
        photo(root / f"{name}.jpg")
        (root / f"{name}.txt").write_text(f"0 0 0 .2 0 .2 .2\n{text}\n")
    (root / "classes.txt").write_text("cat\n")
    assert set(prepared(tmp_path, root, code=2)) == {"y"}
    error = capsys.readouterr().err
    assert message in error and "x.txt, line 2" in error


def via(**shapes):
    return {
        f"{name}123": {"filename": f"{name}.jpg", "size": 123, "file_attributes": {}, "regions": [
            {"shape_attributes": s, "region_attributes": {"type": label}} for label, s in own
        ]} for name, own in shapes.items()
    }  # fmt: skip


@pytest.mark.parametrize("project", [True, False])
def test_via(tmp_path, project, capsys):
    for name in "abc":
        photo(tmp_path / f"in/{name}.jpg")
    polygon = {"name": "polygon", "all_points_x": [4, 30, 30, 4], "all_points_y": [5, 5, 20, 20]}
    rect = {"name": "rect", "x": 10, "y": 2, "width": 5, "height": 3}
    content = via(
        a=[("cat", polygon)],
        b=[("dog", rect), ({"cat": True}, {"name": "circle", "cx": 30, "cy": 20, "r": 4})],
        c=[],
    )
    (tmp_path / "in/via.json").write_text(json.dumps({"_via_img_metadata": content} if project else content))
    found = prepared(tmp_path, tmp_path / "in/via.json")
    assert "recognised VIA's format" in capsys.readouterr().out and classes(tmp_path) == ["cat", "dog"]
    assert (found["a"] == 1).sum() == AREA and (found["b"] == 2).sum() == 6 * 4 and found["b"][20, 26] == 1
    assert set(found) == {"a", "b"}


def test_via_without_a_class(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    content = via(a=[("cat", {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 3})])
    region = content["a123"]["regions"][0]
    for attributes, message in (({}, "they have none"), ({"one": "x", "two": "y"}, "they have one, two")):
        region["region_attributes"] = attributes
        (tmp_path / "in/via.json").write_text(json.dumps(content))
        assert prepare(tmp_path / "set", tmp_path / "in") == 2
        assert message in capsys.readouterr().err


def test_supervisely(tmp_path, capsys):
    stamp = io.BytesIO()
    Image.fromarray(np.array([[0, 255, 255], [0, 0, 255]], np.uint8)).save(stamp, "PNG")
    packed = base64.b64encode(zlib.compress(stamp.getvalue())).decode()
    objects = {
        "a": {"classTitle": "cat", "geometryType": "polygon",
              "points": {"exterior": OUTLINE, "interior": [[[10, 8], [14, 8], [14, 12], [10, 12]]]}},
        "b": {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": packed, "origin": [7, 3]}},
        "c": {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[1, 1], [3, 2]]}},
    }  # fmt: skip
    for name, drawn in objects.items():
        photo(tmp_path / f"ds/img/{name}.jpg")
        (tmp_path / "ds/ann").mkdir(exist_ok=True)
        content = {"size": {"height": H, "width": W}, "objects": [drawn], "tags": []}
        (tmp_path / f"ds/ann/{name}.jpg.json").write_text(json.dumps(content))
    (tmp_path / "ds/meta.json").write_text(json.dumps({"classes": [], "tags": []}))
    found = prepared(tmp_path, tmp_path / "ds")
    said = capsys.readouterr().out
    assert "recognised Supervisely's format: 3 files" in said and "meta.json" in said
    assert (found["a"] == 1).sum() == AREA - 25 and not found["a"][10, 12]
    assert np.argwhere(found["b"] == 2).tolist() == [[3, 8], [3, 9], [4, 9]]
    assert (found["c"] == 2).sum() == 6


def coco(path, names, annotations, categories=({"id": 1, "name": "cat"},), **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": n, **(size or {"height": H, "width": W})} for i, n in enumerate(names)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": list(categories)})
    )
    return path


def drawn(number, image, **more):
    outline = [[x for point in OUTLINE for x in point]]
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": outline, **more}


def test_cocos_files_within_a_folder(tmp_path, capsys):
    """Roboflow's export: a file a split, beside its photos, and a category that no annotation has."""
    for split in ("train", "valid"):
        photo(tmp_path / f"rf/{split}/x.jpg")
        kinds = [{"id": 0, "name": "animals"}, {"id": 1, "name": "cat", "supercategory": "animals"}]
        coco(tmp_path / f"rf/{split}/_annotations.coco.json", ["x.jpg"], [drawn(0, 0)], kinds)
    found = prepared(tmp_path, tmp_path / "rf")
    said = capsys.readouterr().out
    assert "recognised COCO's format: 2 files" in said and "which become no classes: animals" in said
    assert classes(tmp_path) == ["cat"] and set(found) == {"train_x", "valid_x"}
    assert (found["train_x"] == 1).sum() == 26 * 15  # COCO's outlines are borders, not pixels


@pytest.mark.parametrize(
    "size",
    [{"height": -1, "width": -1}, {}, {"height": 30.0, "width": "50"}, {"height": None, "width": None}],
)
def test_sizes_that_programs_write(tmp_path, size):
    for name in "xy":
        photo(tmp_path / f"in/{name}.jpg")
    file = coco(
        tmp_path / "in/a.json", ["x.jpg", "y.jpg"], [drawn(0, 0), drawn(1, 1)], **(size or {"note": 1})
    )
    assert len(prepared(tmp_path, file)) == 2


@pytest.mark.parametrize(
    ("named", "lies"),
    [
        ("images\\x.jpg", "images/x.jpg"),
        ("C:\\data\\x.jpg", "x.jpg"),
        ("/data/coco/x.jpg", "x.jpg"),
        ("x.jpg", "x.JPG"),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg")),
        ("sub/x.jpg", "x.jpg"),
    ],
)
@pytest.mark.parametrize("kind", ["COCO", "labelme", "CVAT", "VIA"])
def test_names_of_images_in_every_format(tmp_path, kind, named, lies):
    photo(tmp_path / "in" / lies)
    photo(tmp_path / "in/other.jpg")
    folder = tmp_path / "in"
    if kind == "COCO":
        coco(folder / "a.json", [named, "other.jpg"], [drawn(0, 0), drawn(1, 1)])
    elif kind == "labelme":
        labelme(folder, "one", [shape("cat", "polygon", OUTLINE)], image=named)
        labelme(folder, "two", [shape("cat", "polygon", OUTLINE)], image="other.jpg")
    elif kind == "CVAT":
        cvat(
            folder,
            (named, f'<polygon label="cat" {POINTS}/>'),
            ("other.jpg", f'<polygon label="cat" {POINTS}/>'),
        )
    else:
        rect = {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 5}
        content = via(a=[("cat", rect)], other=[("cat", rect)])
        content["a123"]["filename"] = named
        (folder / "via.json").write_text(json.dumps(content))
    assert len(prepared(tmp_path, folder)) == 2


@pytest.mark.parametrize("named", ["../../secret.png", "/etc/secret.png", "..\\..\\secret.png"])
def test_annotations_reach_no_file_elsewhere(tmp_path, named, capsys):
    folder = tmp_path / "deep/er/in"
    photo(tmp_path / "deep/secret.png")
    photo(folder / "a.jpg")
    labelme(folder, "a", [shape("cat", "polygon", OUTLINE)], image=named)
    assert prepare(tmp_path / "set", folder) == 2
    assert "leads out of" in capsys.readouterr().err and not list((tmp_path / "set").rglob("*.png"))


def test_images_in_a_folder_beside_labelmes(tmp_path):
    for name in "ab":
        photo(tmp_path / f"images/{name}.jpg")
        (tmp_path / "json").mkdir(exist_ok=True)
        labelme(tmp_path / "json", name, [shape("cat", "polygon", OUTLINE)], image=f"../images/{name}.jpg")
    assert len(prepared(tmp_path, tmp_path / "json")) == 2


@pytest.mark.parametrize("kind", ["rectangle", "rotation"])
def test_rectangles_of_four_corners(tmp_path, kind):
    corners = [[10, 5], [30, 5], [30, 20], [10, 20]]
    turned = [[20, 5], [30, 15], [20, 25], [10, 15]]
    for name, points in (("a", corners), ("b", turned)):
        photo(tmp_path / f"in/{name}.jpg")
        labelme(tmp_path / "in", name, [shape("cat", kind, points)])
    found = prepared(tmp_path, tmp_path / "in")
    assert (found["a"] == 1).sum() == 21 * 16 and (found["b"] == 1).sum() == 221 and not found["b"][5, 10]


def test_labelme_as_other_programs_write_it(tmp_path):
    """Without a size, with a number for a label, in UTF-16, and with its photo inside."""
    for name, label in (("a", 1), ("b", "1"), ("c", "1")):
        photo(tmp_path / f"in/{name}.jpg")
        labelme(tmp_path / "in", name, [shape(label, "polygon", OUTLINE)], size=(None, None))
    file = tmp_path / "in/b.json"
    file.write_bytes(file.read_text().encode("utf-16"))
    content = json.loads((tmp_path / "in/c.json").read_text())
    content["imageData"] = base64.b64encode((tmp_path / "in/c.jpg").read_bytes()).decode()
    (tmp_path / "in/c.json").write_text(json.dumps(content))
    kept = (tmp_path / "in/c.jpg").read_bytes()
    (tmp_path / "in/c.jpg").unlink()
    found = prepared(tmp_path, tmp_path / "in")
    assert classes(tmp_path) == ["1"] and {n: (m == 1).sum() for n, m in found.items()} == dict.fromkeys(
        "abc", AREA
    )
    assert (tmp_path / "set/JPEGImages/c.jpg").read_bytes() == kept


def test_a_photo_on_its_side_needs_the_annotations_size(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg", (W, H), orientation=6)
    labelme(tmp_path / "in", "a", [shape("cat", "polygon", OUTLINE)], size=(None, None))
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    assert "is turned by its EXIF tag; write them into it" in capsys.readouterr().err


def test_background_among_classes_is_none(tmp_path):
    for name in "ab":
        photo(tmp_path / f"in/{name}.jpg")
        labelme(
            tmp_path / "in",
            name,
            [shape("cat", "polygon", OUTLINE), shape("Background", "rectangle", [[0, 0], [9, 9]])],
        )
    found = prepared(tmp_path, tmp_path / "in")
    assert classes(tmp_path) == ["cat"] and not found["a"][:10, :10].any() and found["a"][15, 15] == 1


def test_two_formats_in_one_folder_are_named(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    labelme(tmp_path / "in", "a", [shape("cat", "polygon", OUTLINE)])
    coco(tmp_path / "in/b.json", ["a.jpg"], [drawn(0, 0)])
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    error = capsys.readouterr().err
    assert "labelme's (1, such as" in error and "COCO's (1, such as" in error and "name one file" in error


def test_supports_take_every_format(tmp_path, capsys):
    from fss.photos.supports import supports_of

    photo(tmp_path / "job/a.jpg")
    cvat(tmp_path / "job", ("a.jpg", f'<polygon label="cat" {POINTS}/><polygon label="cat" points=""/>'))
    (support,) = supports_of([str(tmp_path / "job")])
    assert support.name == "cat" and support.marks.sum() == AREA
    assert "marks nothing" in capsys.readouterr().err


def test_a_file_that_claims_a_huge_image_draws_nothing(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    labelme(tmp_path / "in", "a", [shape("cat", "polygon", OUTLINE)], size=(65535, 65535))
    photos = tmp_path / "photos"
    photo(photos / "q.jpg")
    code = main(
        ["predict", "--support", str(tmp_path / "in"), "--query", str(photos), "--out", str(tmp_path / "o")]
    )
    assert code == 2 and "is 50x30, its annotation in" in capsys.readouterr().err
