"""What a folder holds is told from its files; formats that are known and not read are named."""

import json

import pytest

from tests.data.prepare.test_folder import labelme, photo, prepare, shape

VOC = "<annotation><filename>a.jpg</filename><object><name>cat</name></object></annotation>"
STUDIO = json.dumps([{"id": 1, "data": {"image": "/data/a.jpg"}, "annotations": []}])


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", VOC, "a.xml is Pascal VOC's, whose boxes are no masks"),
        ("a.json", STUDIO, "a.json is Label Studio's own; export it as COCO"),
        ("a.json", '{"shapes": [],}', "a.json cannot be read"),
    ],
)
def test_formats_that_are_known_and_not_read(tmp_path, name, content, message, inside, capsys):
    photo(tmp_path / "in/photo.jpg")
    (tmp_path / "in" / name).write_text(content)
    assert prepare(tmp_path / "set", tmp_path / "in" / ("" if inside else name)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.zip", "is an archive; unpack it"), ("a.csv", "is a table"), ("a.ndjson", "has a JSON a line"),
     ("a.xlsx", "is of no format that is known. fss reads masks")],
)  # fmt: skip
def test_files_of_other_kinds(tmp_path, name, message, capsys):
    (tmp_path / name).write_bytes(b"x")
    assert prepare(tmp_path / "set", tmp_path / name) == 2
    assert message in capsys.readouterr().err


def test_a_stray_file_does_not_decide_what_a_folder_is(tmp_path, capsys):
    """A JSON of settings beside masks, and one beside labelme's."""
    from tests.data.prepare.test_own_masks import DISK, put

    for name in "ab":
        photo(tmp_path / f"img/{name}.jpg")
        put(tmp_path / f"m/{name}.png", DISK)
        photo(tmp_path / f"in/{name}.jpg")
        labelme(tmp_path / "in", name, [shape("cat", "rectangle", [[1, 1], [9, 9]])])
    for folder in ("m", "in"):
        (tmp_path / folder / "settings.json").write_text('{"brush": 3}')
    assert prepare(tmp_path / "one", tmp_path / "m", "--images", tmp_path / "img") == 0
    assert "recognised 2 masks" in (said := capsys.readouterr().out) and "settings.json" in said
    assert prepare(tmp_path / "two", tmp_path / "in") == 0
    assert (
        "recognised labelme's format: 2 files" in (said := capsys.readouterr().out)
        and "settings.json" in said
    )


def test_a_folder_of_images_that_is_not_there(tmp_path, capsys):
    photo(tmp_path / "m/a.png")
    assert prepare(tmp_path / "set", tmp_path / "m", "--images", tmp_path / "photo") == 2
    assert "photo is no folder" in capsys.readouterr().err


def test_each_file_is_read_once(tmp_path, monkeypatch):
    """A file of COCO's may take seconds."""
    from fss.data.prepare import recognise

    read, real = [], recognise.load_json
    monkeypatch.setattr(recognise, "load_json", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr("fss.data.prepare.coco.load_json", lambda path: read.append(path.name) or real(path))
    for name in "ab":
        photo(tmp_path / f"in/{name}.jpg")
        labelme(tmp_path / "in", name, [shape("cat", "rectangle", [[1, 1], [9, 9]])])
    (tmp_path / "in/settings.json").write_text("{}")
    assert prepare(tmp_path / "set", tmp_path / "in") == 0
    assert sorted(read) == ["a.json", "b.json", "settings.json"]
