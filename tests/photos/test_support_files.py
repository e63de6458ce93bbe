"""What `--support` takes beside a photo and its mask: folders, labelme's files, COCO's."""

import json

import numpy as np
import pytest
from PIL import Image

from fss.errors import UserError
from fss.photos.supports import supports_of


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def photo():
    return np.full((20, 30, 3), 90, np.uint8)


def square(top, left, side=6, value=1):
    mask = np.zeros((20, 30), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def labelme(path, image, **boxes):
    shapes = [
        {"label": name, "shape_type": "rectangle", "points": [[x, y], [x + 5, y + 5]]}
        for name, (y, x) in boxes.items()
    ]
    content = {"imagePath": image, "imageHeight": 20, "imageWidth": 30, "shapes": shapes}
    path.write_text(json.dumps(content))


def test_a_folder_of_photos_and_masks_of_the_same_names(tmp_path, photo):
    put(tmp_path / "cat.jpg", photo)
    put(tmp_path / "cat.png", square(2, 3))
    put(tmp_path / "dog.png", photo)
    put(tmp_path / "dog_mask.png", square(4, 5))
    put(tmp_path / "alone.jpg", photo)
    found = supports_of([str(tmp_path), "pet"])
    assert [(s.image.name, s.marks.name, s.name) for s in found] == [
        ("cat.jpg", "cat.png", "pet"), ("dog.png", "dog_mask.png", "pet"),
    ]  # fmt: skip


def test_two_folders(tmp_path, photo):
    put(tmp_path / "photos/cat.png", photo)
    put(tmp_path / "masks/cat.png", square(2, 3))
    (found,) = supports_of([str(tmp_path / "photos"), str(tmp_path / "masks")])
    assert found.image == tmp_path / "photos/cat.png" and found.marks == tmp_path / "masks/cat.png"
    assert found.name is None


def test_labelmes_files_one_or_a_folder(tmp_path, photo):
    for name in ("a", "b"):
        put(tmp_path / f"{name}.jpg", photo)
    labelme(tmp_path / "a.json", "a.jpg", cat=(2, 3), dog=(10, 20))
    labelme(tmp_path / "b.json", "b.jpg", cat=(5, 5))
    one = supports_of([str(tmp_path / "a.json")])
    assert [(s.name, s.image) for s in one] == [(n, tmp_path / "a.jpg") for n in ("cat", "dog")]
    assert (one[0].marks == square(2, 3)).all() and (one[1].marks == square(10, 20)).all()
    every = supports_of([str(tmp_path), "cat"])
    assert [s.image.name for s in every] == ["a.jpg", "b.jpg"] and {s.name for s in every} == {"cat"}
    with pytest.raises(UserError, match="has no class 'cow'; there are: cat, dog"):
        supports_of([str(tmp_path), "cow"])


def test_a_coco_file_with_images_beside_it_or_elsewhere(tmp_path, photo):
    pytest.importorskip("pycocotools")
    put(tmp_path / "img/a.jpg", photo)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[3, 2, 9, 2, 9, 8, 3, 8]]}
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (found,) = supports_of([str(tmp_path / "coco.json"), str(tmp_path / "img")])
    assert found.name == "cat" and (found.marks == square(2, 3)).all()
    assert found.image == tmp_path / "img/a.jpg"


@pytest.mark.parametrize("words", [["x.json"], ["a.jpg"], ["a.jpg", "b.png", "cat", "more"], []])
def test_what_is_not_there_or_too_much_is_told(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"wanted IMG MASK|no annotations at x\.json"):
        supports_of(words)


def test_a_folder_without_pairs_says_what_was_looked_for(tmp_path, photo):
    put(tmp_path / "a.jpg", photo)
    with pytest.raises(UserError, match=r"no photo in .* cat\.jpg and cat\.png"):
        supports_of([str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jpg", "a.json"], "a.json names its photos itself; leave a.jpg out"),
        (["a.json", "a.jpg"], "a.json names its photos itself; leave a.jpg out"),
        (["a.jpg", "a.png", "b.jpg", "b.png"], "say --support once for each photo and its mask"),
    ],
)
def test_words_that_belong_to_another_form(words, message):
    with pytest.raises(UserError, match=message):
        supports_of(words)


def test_a_damaged_annotation_is_named_alone_or_among_others(tmp_path, photo):
    put(tmp_path / "a.jpg", photo)
    (tmp_path / "b.json").write_text("{")
    for _ in range(2):
        with pytest.raises(UserError, match=r"b.json cannot be read \(its JSON breaks off"):
            supports_of([str(tmp_path)])
        labelme(tmp_path / "a.json", "a.jpg", cat=(2, 2))
