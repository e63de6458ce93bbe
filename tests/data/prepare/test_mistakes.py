"""Mistakes in annotations that people bring: damaged, hidden, doubled, misnamed; numbers that shift."""

import json

import pytest

from tests.data.prepare.test_folder import H, W, labelme, photo, prepare, shape
from tests.data.prepare.test_formats import AREA, OUTLINE, classes, prepared


def labelled(folder, *names, label="cat"):
    for name in names:
        photo(folder / f"{name}.jpg")
        labelme(folder, name, [shape(label, "polygon", OUTLINE)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b'{"shapes": [', "its JSON breaks off, or is malformed, at line 1, column 13"),
        ('{"shapes": "\u00e9"}'.encode("latin-1"), "it is no text in UTF-8; save it as UTF-8"),
    ],
)
def test_a_damaged_file_among_good_ones_is_named(tmp_path, content, message, capsys):
    labelled(tmp_path / "in", "a", "b")
    (tmp_path / "in/c.json").write_bytes(content)
    assert set(prepared(tmp_path, tmp_path / "in", code=2)) == {"a", "b"}
    error = capsys.readouterr().err
    assert f"c.json cannot be read ({message})" in error


def test_hidden_copies_are_no_annotations(tmp_path, capsys):
    labelled(tmp_path / "in", "a", "b")
    labelled(tmp_path / "in/.ipynb_checkpoints", "a-checkpoint")
    (tmp_path / "in/._a.json").write_bytes(b"\0\5\x16\7")
    assert set(prepared(tmp_path, tmp_path / "in")) == {"a", "b"}
    assert "passed over" not in capsys.readouterr().out


def test_an_image_with_two_annotations_names_both(tmp_path, capsys):
    labelled(tmp_path / "in", "a", "b")
    (tmp_path / "in/a (1).json").write_bytes((tmp_path / "in/a.json").read_bytes())
    assert set(prepared(tmp_path, tmp_path / "in", code=2)) == {"b"}
    assert "a.jpg is annotated twice, in " in (error := capsys.readouterr().err)
    assert "a (1).json and " in error and "a.json; take one of the two away" in error


def test_pictures_without_annotations_and_twin_names_are_said(tmp_path, capsys):
    labelled(tmp_path / "in", "a", "b")
    labelled(tmp_path / "in", "c", label="Cat")
    photo(tmp_path / "in/d.jpg")
    prepared(tmp_path, tmp_path / "in")
    said = capsys.readouterr().out
    assert "Cat and cat are two classes; for one, give them one spelling" in said
    assert f"no annotation is for them: 1 pictures, {tmp_path}/in/d.jpg" in said


def test_nothing_is_written_where_no_image_can_be_used(tmp_path, capsys):
    photo(tmp_path / "in/a.jpg")
    labelme(tmp_path / "in", "a", [shape("cat", "polygon", OUTLINE)], size=(W, H))
    assert prepare(tmp_path / "set", tmp_path / "in") == 2
    assert "could be used" in (error := capsys.readouterr().err) and "are too few" not in error
    assert not list((tmp_path / "set").rglob("*.txt"))


def test_points_in_shares_of_the_sides_are_no_pixels(tmp_path, capsys):
    labelled(tmp_path / "in", "a", "b")
    labelme(tmp_path / "in", "b", [shape("cat", "polygon", [[0.1, 0.1], [0.6, 0.1], [0.6, 0.6]])])
    assert set(prepared(tmp_path, tmp_path / "in", code=2)) == {"a"}
    assert "within one pixel, as shares of the sides would; wanted pixels" in capsys.readouterr().err


FLAT = [[x for point in OUTLINE for x in point]]


def cocos(folder, **change):
    for name in "ab":
        photo(folder / f"{name}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{n}.jpg", "height": H, "width": W} for i, n in enumerate("ab")],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "segmentation": FLAT} for i in range(2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "coco.json").write_text(json.dumps(content | change))


@pytest.mark.parametrize("kind", [str, float])
def test_numbers_of_coco_may_be_written_as_text_or_with_a_point(tmp_path, kind):
    given = [{"image_id": kind(i), "category_id": kind(1), "segmentation": FLAT} for i in (0, 1)]
    cocos(tmp_path / "in", annotations=[{**a, "id": i} for i, a in enumerate(given)])
    assert {n: (m == 1).sum() for n, m in prepared(tmp_path, tmp_path / "in").items()}.keys() == {"a", "b"}


def test_cocos_panoptic_annotations_are_named(tmp_path, capsys):
    cocos(tmp_path / "in", annotations=[{"image_id": 0, "file_name": "a.png", "segments_info": []}])
    prepared(tmp_path, tmp_path / "in", code=2)
    assert "are COCO's panoptic ones; wanted instances" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"project": {}, "file": {}, "metadata": {}}, "is VIA 3's; export it as COCO"),
        ({"categories": {}, "items": []}, "is Datumaro's; export it as COCO"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5}], "is COCO's results, which name no images"),
        ({"shapes": {"a": 1}, "imagePath": "a.jpg"}, 'shapes is {"a": 1}; wanted a list'),
        ({"shapes": [], "imagePath": None}, "imagePath is missing; wanted"),
        (
            {"objects": {"a": None}, "size": {"height": H, "width": W}},
            'objects is {"a": null}; wanted a list',
        ),
    ],
)
def test_other_json_is_named_in_its_own_words(tmp_path, content, message, capsys):
    photo(tmp_path / "in/a.jpg")
    (tmp_path / "in/a.jpg.json").write_text(json.dumps(content))
    prepared(tmp_path, tmp_path / "in", code=2)
    error = capsys.readouterr().err
    assert message in error and "None" not in error


def yolo(folder, names, named="data.yaml", **lines):
    for name, text in lines.items():
        photo(folder / f"images/{name}.jpg")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / f"labels/{name}.txt").write_text(text)
    (folder / named).write_text(names)


LINE = "1 .08 .16667 .6 .16667 .6 .66667 .08 .66667\n"


def test_every_file_beside_yolos_labels_counts(tmp_path, capsys):
    yolo(
        tmp_path / "in", "names: {'0': dog, '1': cat}", a=LINE, b=LINE.replace("1", "1.0", 1), c="",
        d=LINE.replace(" ", ","),
    )  # fmt: skip
    found = prepared(tmp_path, tmp_path / "in", code=2)
    assert {name: (mask == 2).sum() for name, mask in found.items()} == {"a": AREA, "b": AREA, "c": 0}
    assert "d.txt, line 1: " in (error := capsys.readouterr().err) and "with blanks between" in error


@pytest.mark.parametrize(
    ("named", "names", "message"),
    [
        ("data.yaml", "names: [cat, cat]", "names 'cat' twice"),
        ("data.yaml", "names: [yes, no]", "which YAML reads as a truth value; write it in quotes"),
        ("data.yaml", "names: {0: cat, 2: dog}", "names has no class 1; number them from 0 without gaps"),
        ("classes.txt", "0 cat\n1 dog\n", "its lines begin with numbers, as '0 cat' does"),
        ("classes.txt", "cat\ncat\n", "names 'cat' twice"),
    ],
)
def test_names_of_yolo_that_would_shift_or_mix_classes(tmp_path, named, names, message, capsys):
    yolo(tmp_path / "in", names, named, a=LINE, b=LINE)
    prepared(tmp_path, tmp_path / "in", code=2)
    assert message in capsys.readouterr().err and not (tmp_path / "set/classes.txt").exists()


def test_background_may_be_yolos_first_line(tmp_path):
    yolo(tmp_path / "in", "background\ncat\n", "classes.txt", a=LINE, b=LINE)
    assert (prepared(tmp_path, tmp_path / "in")["a"] == 1).sum() == AREA and classes(tmp_path) == ["cat"]


@pytest.mark.parametrize(("source", "message"), [("in/*.json", "name the folder"), ("~/in", "write it out")])
def test_what_the_shell_leaves_as_it_is(tmp_path, monkeypatch, source, message, capsys):
    monkeypatch.chdir(tmp_path)
    assert prepare(tmp_path / "set", source) == 2
    assert message in capsys.readouterr().err
