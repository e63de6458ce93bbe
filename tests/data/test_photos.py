"""People's photos and masks: every format reads as a viewer shows it, or says what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss.data.drawings import object_labels, read_drawing
from fss.data.files import image_size
from fss.data.photos import photos_of, read_photo
from fss.errors import UserError

RANDOM = np.random.default_rng(0)
COLOUR = np.kron(RANDOM.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # (24,32,3)
GREY = COLOUR[..., 0]
MASK = np.zeros((24, 32), np.uint8)
MASK[2:9, 20:30] = 1  # in no middle, so that every turn shows


def save(path, array, mode=None, **more):
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **more)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_colours_stay(tmp_path, suffix):
    more = {"lossless": True} if suffix == "webp" else {}
    assert (read_photo(save(tmp_path / f"a.{suffix}", COLOUR, **more)) == COLOUR).all()


def test_grey_becomes_rgb(tmp_path):
    assert (read_photo(save(tmp_path / "a.png", GREY)) == GREY[..., None]).all()
    assert (read_photo(save(tmp_path / "b.png", GREY > 90)) == 255 * (GREY > 90)[..., None]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_the_upper_ones(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", GREY.astype(np.uint16) * 257)
    assert np.abs(read_photo(path).astype(int) - GREY[..., None]).max() <= 1


def test_transparent_pixels_lie_on_white(tmp_path):
    alpha = np.where(MASK == 1, 0, 255).astype(np.uint8)
    got = read_photo(save(tmp_path / "a.png", np.dstack([COLOUR, alpha])))
    assert (got[MASK == 1] == 255).all() and (got[MASK == 0] == COLOUR[MASK == 0]).all()
    grey = read_photo(save(tmp_path / "b.png", np.dstack([GREY, alpha])))
    assert (grey[MASK == 1] == 255).all() and (grey[MASK == 0] == GREY[MASK == 0][:, None]).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_looks_as_it_did(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", COLOUR, "CMYK")
    assert np.abs(read_photo(path).astype(int) - COLOUR).mean() < 6


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_turns_the_photo_and_a_mask_drawn_on_it_as_stored(tmp_path, tag):
    stored, mask = tmp_path / "a.png", tmp_path / "mask.png"
    exif = Image.Exif()
    exif[0x0112] = tag
    save(stored, np.dstack([MASK * 255] * 3), exif=exif)
    shown = (read_photo(stored)[..., 0] > 0).astype(np.uint8)
    assert shown.shape == ((24, 32) if tag <= 4 else (32, 24))
    save(mask, shown)  # drawn on what a viewer shows
    assert (read_drawing(mask, stored) == shown).all()
    if tag >= 5:  # drawn on the pixels as they are stored
        save(mask, MASK)
        assert (read_drawing(mask, stored) == shown).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "I;16", "1"])
def test_masks_of_every_kind_hold_the_same_labels(tmp_path, mode):
    path = tmp_path / "m.png"
    if mode == "I;16":
        save(path, MASK.astype(np.uint16))
    elif mode == "P":
        picture = Image.fromarray(MASK)
        picture.putpalette([200, 10, 30, 9, 99, 9])
        save(path, picture)
    elif mode == "1":
        save(path, MASK == 1)
    else:
        save(path, MASK, mode)
    assert (read_drawing(path) == MASK).all()


def test_black_and_white_is_object_and_labels_keep_255_for_ignored():
    assert (object_labels(MASK * 255, "m") == MASK).all()
    assert (object_labels((MASK.astype(np.uint16) * 65535 // 257).astype(np.uint8), "m") == MASK).all()
    mixed = MASK.copy()
    mixed[0] = 255
    assert (object_labels(mixed, "m") == mixed).all()


def test_sixteen_bit_black_and_white(tmp_path):
    path = save(tmp_path / "m.png", MASK.astype(np.uint16) * 65535)
    assert (object_labels(read_drawing(path), "m") == MASK).all()


def test_a_mask_with_colours_or_shades_is_refused(tmp_path):
    with pytest.raises(UserError, match="has colours; save it as a grey or palette PNG"):
        read_drawing(save(tmp_path / "m.png", COLOUR))
    with pytest.raises(UserError, match="values from 0 to 300; allowed: 0 to 255"):
        read_drawing(save(tmp_path / "w.png", MASK.astype(np.uint16) * 300))
    shades = np.arange(24 * 32).reshape(24, 32).astype(np.uint8)
    with pytest.raises(UserError, match="m has 256 different values"):
        object_labels(shades, "m")
    with pytest.raises(UserError, match="m is empty"):
        object_labels(MASK * 0, "m")


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff\xe0 a JPEG's head alone"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    for read, what in ((read_photo, "image"), (read_drawing, "mask")):
        with pytest.raises(UserError, match=f"{what} .*broken.jpg is damaged or of an unknown format"):
            read(path)
        with pytest.raises(UserError, match=f"{what} .*absent.jpg does not exist"):
            read(tmp_path / "absent.jpg")


def test_a_jpeg_that_breaks_off_is_refused(tmp_path):
    whole = save(tmp_path / "a.jpg", np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    whole.write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(UserError, match="damaged"):
        read_photo(whole)


def test_photos_are_found_by_name_once(tmp_path):
    names = ["b.jpg", "a photo.PNG", "фото.jpg", "写真.png"]
    for name in names:
        save(tmp_path / name, COLOUR)
    (tmp_path / "notes.txt").write_text("no photo")
    assert sorted(p.name for p in photos_of([tmp_path, tmp_path / "b.jpg"]).files) == sorted(names)
    with pytest.raises(UserError, match="does not exist"):
        photos_of([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images in .*empty; looked for .jpg"):
        photos_of([tmp_path / "empty"])
    save(tmp_path / "b.png", COLOUR)
    with pytest.raises(UserError, match="have one name, so that results would mix"):
        photos_of([tmp_path])


@pytest.fixture
def without_heif(monkeypatch):
    monkeypatch.setattr("fss.data.formats._heif", lambda: False)


@pytest.mark.usefixtures("without_heif")
def test_pictures_that_are_no_photos_of_a_folder_are_named(tmp_path):
    for name in ("cat.jpg", "cat_scribble.png", "cat_mask.PNG", "dog_mask.png"):
        save(tmp_path / name, COLOUR)
    for name in ("b.HEIC", "c.gif", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    found = photos_of([tmp_path])
    assert [p.name for p in found.files] == ["cat.jpg", "dog_mask.png"]  # a photo of its own
    assert [p.name for p in found.drawings] == ["cat_mask.PNG", "cat_scribble.png"]
    assert [p.name for p in found.unread] == ["b.HEIC", "c.gif"]
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/a.heic").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no images in .*phone; looked for .*a\.heic: it is HEIC: pip install"
    ):
        photos_of([tmp_path / "phone"])


def test_heic_is_read_where_its_package_is(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pip install pillow-heif")
    heif.from_pillow(Image.fromarray(COLOUR)).save(tmp_path / "a.HEIC", quality=100)
    (found,) = photos_of([tmp_path]).files
    assert np.abs(read_photo(found).astype(int) - COLOUR).mean() < 12  # its colours are halved


@pytest.mark.usefixtures("without_heif")
@pytest.mark.parametrize("suffix", ["heic", "jpg"])
def test_heic_is_named_by_suffix_and_by_content(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 99)
    with pytest.raises(UserError, match=r"cannot be read: it is HEIC: pip install pillow-heif, or save it"):
        read_photo(path)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    size = 13_000
    Image.new("1", (size, size)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"more than 100 million pixels; make it smaller.*\(13000x13000\)"):
        read_photo(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 10**6


@pytest.mark.parametrize("suffix", ["jpg", "gif", "webp"])
def test_formats_that_alter_labels_are_refused(tmp_path, suffix):
    with pytest.raises(UserError, match="may alter labels; save it as PNG"):
        read_drawing(save(tmp_path / f"m.{suffix}", MASK * 255))


def test_soft_edges_of_a_white_object_are_no_labels():
    big = Image.fromarray(np.kron(MASK * 255, np.ones((10, 10), np.uint8)))
    soft = np.array(big.resize((47, 35), Image.Resampling.BOX))
    assert 0 < len(np.setdiff1d(soft, (0, 255))) < 64
    with pytest.raises(UserError, match="without smooth edges"):
        object_labels(soft, "m")


def test_black_and_white_palettes_number_either_way(tmp_path):
    for order in ([0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0]):
        picture = Image.fromarray(MASK if order[0] == 0 else 1 - MASK)
        picture.putpalette(order)
        assert (object_labels(read_drawing(save(tmp_path / "m.png", picture)), "m") == MASK).all()


def test_a_mask_in_the_alpha_channel_is_refused(tmp_path):
    white = np.full_like(MASK, 255)
    with pytest.raises(UserError, match="alpha channel"):
        read_drawing(save(tmp_path / "m.png", np.dstack([white, white, white, MASK * 255])))


def test_floats_and_wide_values_out_of_range_are_named(tmp_path):
    values = GREY.astype(np.float32) / 255
    got = read_photo(save(tmp_path / "f.tif", values))
    assert np.abs(got.astype(int) - GREY[..., None]).max() <= 1
    for bad in (np.nan, np.inf, 1.02, -0.1):
        values[0, 0] = bad
        with pytest.raises(UserError, match=r"values from .* allowed: 0 to 1"):
            read_photo(save(tmp_path / "f.tif", values))


def test_sixteen_bits_scale_alike_whatever_their_maximum(tmp_path):
    for most in (255, 256, 4095):
        wide = np.full((4, 4), most, np.uint16)
        assert (read_photo(save(tmp_path / "a.png", wide)) == most // 257).all()


def test_what_is_no_file_is_said(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    for read in (read_photo, read_drawing):
        with pytest.raises(UserError, match="is no file"):
            read(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="neither an image file nor a folder"):
        photos_of([tmp_path / "pipe.png"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty; copy it again"), (b"<html>", "its content is no picture's; read are .jpg")],
)
def test_what_is_no_picture_is_said_in_plain_words(tmp_path, content, message):
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_photo, image_size):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "a.jpg")


def test_results_of_predict_are_no_photos(tmp_path):
    for name in ("a.jpg", "b_labels.png", "b_overlay.jpg"):
        save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "b_predict.json").write_text("{}")
    found = photos_of([tmp_path])
    assert [p.name for p in found.files] == ["a.jpg"]
    assert [p.name for p in found.drawings] == ["b_labels.png", "b_overlay.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"b_labels.png is a result of fss predict"):
        photos_of([tmp_path])


@pytest.mark.parametrize(
    ("name", "message"),
    [("in/*.jpg", "name the folder"), ("~/in", "write it out"), ("https://a.b/c.jpg", "save the file")],
)
def test_paths_that_cannot_be_there(name, message):
    with pytest.raises(UserError, match=message):
        photos_of([Path(name)])
