"""Which classes an image shows: from its mask's counts, or from a file, whose mistakes are named."""

import pytest

from fss.data.image_labels import open_labelled_images, read_labels
from fss.errors import UserError
from fss.recipes import load_config
from tests.make import make_folder

NAMES, CLASSES = ["a", "my photo", "c"], ["cat", "dining table", "dog"]


def read(tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    return read_labels(path, NAMES, CLASSES)


def test_commas_tabs_or_blanks(tmp_path):
    found = read(tmp_path, "c cat dog\n\nmy photo, dining table\na\n")
    assert found.tolist() == [[False, False, False], [False, True, False], [True, False, True]]
    assert (read(tmp_path, "c\tcat\tdog\nmy photo\tdining table\na") == found).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a cat\nmy photo,\nc dgo",
            r"labels\.txt line 3: 'dgo' is no class, did you mean dog\?; there are: cat",
        ),
        ("a cat\nmy photo,\nd dog\nc", "line 3: 'd' is no image of the list"),
        ("a cat\na dog", "line 2: a stands in line 1 already"),
        ("c cat", "leaves out 2 of 3 images: a, my photo; give each a line"),
    ],
)
def test_mistakes_name_line_and_culprit(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_unreadable_file(tmp_path):
    with pytest.raises(UserError, match=r"pseudo\.labels=.*cannot be read"):
        read_labels(tmp_path / "none.txt", NAMES, CLASSES)


def test_labels_of_masks_and_of_a_file_agree_and_hold_base_classes_alone(tmp_path):
    root = make_folder(tmp_path / "set")  # image n shows classes n % 4 + 1 and (n + 1) % 4 + 1
    config = load_config("folder", "cwt", [f"data.root={root}", "data.fold=1"]).data
    seen = open_labelled_images(config, "train")
    assert seen.base == [1, 3, 4] and seen.base_names == ("kind 1", "kind 3", "kind 4")
    assert seen.present[:4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]]
    lines = [f"{s.name}, kind {n % 4 + 1}, kind {(n + 1) % 4 + 1}" for n, s in enumerate(seen.samples)]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    for mask in (root / "SegmentationClass").glob("*.png"):
        mask.unlink()
    told = open_labelled_images(config, "train", tmp_path / "labels.txt")  # which needs no mask at all
    assert (told.present == seen.present).all() and told.checksum == seen.checksum
