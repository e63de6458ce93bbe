"""List files: both kinds of line, and every mistake with its line number."""

import pytest

from fss.data.folder import read_classes
from fss.data.lists import list_checksum, read_list
from fss.errors import UserError
from tests.make import make_voc


@pytest.fixture
def root(tmp_path):
    make_voc(tmp_path, classes=2, images=3)
    return tmp_path


def write(root, text):
    path = root / "list.txt"
    path.write_text(text)
    return path


def test_both_kinds_of_line_name_the_same_files(root):
    bare = read_list(write(root, "2007_000000\n\n2007_000001\n"), root)
    lines = [f"JPEGImages/{n}.jpg SegmentationClass/{n}.png" for n in ("2007_000000", "2007_000001")]
    assert read_list(write(root, "\n".join(lines)), root) == bare
    assert list_checksum(bare) == list_checksum(bare[::-1])


def test_names_with_spaces(root):
    (root / "JPEGImages/2007_000000.jpg").rename(root / "JPEGImages/my photo.jpg")
    (root / "SegmentationClass/2007_000000.png").rename(root / "SegmentationClass/my photo.png")
    (bare,) = read_list(write(root, "my photo\n"), root)
    (pair,) = read_list(write(root, "JPEGImages/my photo.jpg SegmentationClass/my photo.png\n"), root)
    assert bare == pair and bare.name == "my photo"


def test_augmented_masks_come_first(root):
    make_voc(root, classes=2, images=3, masks="SegmentationClassAug")
    assert read_list(write(root, "2007_000000\n"), root)[0].mask.parent.name == "SegmentationClassAug"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("2007_000000\n2007_000009\n", "line 2.*2007_000009.jpg does not exist"),
        ("2007_000000\n2007_000000\n", "line 2.*stands in line 1"),
        ("../x.jpg ../x.png\n", "line 1.*outside"),
        ("../../secret\n", "line 1.*outside"),
    ],
)
def test_mistakes_are_named(root, text, message):
    with pytest.raises(UserError, match=message):
        read_list(write(root, text), root)


def test_classes_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffcar\r\nred bus\r\n\r\n".encode())
    assert read_classes(tmp_path) == ("car", "red bus")
    for text in ("", "a\n\nb\n", "a\na\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"classes\.txt"):
            read_classes(tmp_path)


def test_windows_paths_and_what_is_there_in_place(root):
    path = write(root, "JPEGImages\\{} SegmentationClass\\{}".format(*names_of(root)))
    assert len(read_list(path, root)) == 1
    stem = names_of(root)[0].removesuffix(".jpg")
    (root / f"JPEGImages/{stem}.jpg").rename(root / f"JPEGImages/{stem}.webp")
    with pytest.raises(UserError, match=rf"and {stem}.webp does; allowed: .jpg, .jpeg, .png, .bmp"):
        read_list(write(root, stem), root)
    with pytest.raises(UserError, match="A line holds a name without its suffix, or `IMAGE MASK`"):
        read_list(write(root, "nothing.jpg"), root)


def test_two_images_of_one_name_are_refused(root):
    image = names_of(root)[0]
    stem = image.removesuffix(".jpg")
    (root / f"JPEGImages/{stem}.png").write_bytes((root / f"JPEGImages/{image}").read_bytes())
    with pytest.raises(UserError, match=rf"{stem}.jpg and {stem}.png have one name"):
        read_list(write(root, stem), root)


def names_of(root):
    image = sorted((root / "JPEGImages").glob("*.jpg"))[0]
    return image.name, f"{image.stem}.png"
