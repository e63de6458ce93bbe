"""The index: right counts, read once, and the masks that do not fit are named."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fss.data.index as index_module
from fss.data.index import build_index, white_masks
from fss.data.lists import Sample, read_list
from fss.errors import UserError
from tests.make import make_folder, save_mask


@pytest.fixture
def samples(tmp_path):
    root = make_folder(tmp_path / "set")
    return read_list(root / "ImageSets/Segmentation/train.txt", root)


def test_counts(samples):
    index = build_index(samples, 4)
    assert index.pixels[0].tolist() == [48 * 64 - 2 * 24 * 20, 22 * 18, 22 * 18, 0, 0]
    assert index.images_of(1, 100).tolist() == [0, 3, 4, 7, 8, 11, 12, 15]


def test_cache_rereads_only_what_changed(samples, tmp_path, monkeypatch):
    first = build_index(samples, 4, tmp_path / "cache")
    read = []
    count = index_module.count_labels
    monkeypatch.setattr(index_module, "count_labels", lambda s, n: read.append(s.name) or count(s, n))
    assert np.array_equal(build_index(samples, 4, tmp_path / "cache").pixels, first.pixels)
    assert read == []
    save_mask(samples[3].mask, np.full((48, 64), 2, np.uint8))
    os.utime(samples[3].mask, ns=(1, 1))
    again = build_index(samples, 4, tmp_path / "cache")
    assert read == [samples[3].name] and again.pixels[3].tolist() == [0, 0, 48 * 64, 0, 0]


def test_unknown_label_and_other_size_are_named(samples):
    save_mask(samples[2].mask, np.full((48, 64), 9, np.uint8))
    with pytest.raises(UserError, match=r"2007_000002.png has unknown labels \[9\]; allowed: 0..4 and 255"):
        build_index(samples, 4)
    save_mask(samples[2].mask, np.zeros((64, 48), np.uint8))
    with pytest.raises(UserError, match=r"2007_000002\.png is 48x64, its image 64x48"):
        build_index(samples, 4)


def test_82000_images_take_less_than_100_mb(monkeypatch):
    """COCO's training images with 80 classes: samples, counts, and the time in between."""
    monkeypatch.setattr(index_module, "count_labels", lambda sample, n: np.zeros(n + 1, np.int64))
    monkeypatch.setattr(index_module, "_stamp", lambda sample: (1, 2, 3, 4))
    root = Path("data/coco")
    tracemalloc.start()
    names = [f"COCO_train2014_{n:012d}" for n in range(82_000)]
    files = lambda n: (f"train2014/{n}.jpg", f"SegmentationClass/train2014/{n}.png")  # noqa: E731
    samples = [Sample(n, root, files(n)) for n in names]
    index = build_index(samples, 80)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index.names) == 82_000 and kept < 100e6 and peak < 100e6, (kept, peak)


@pytest.mark.parametrize("part", ["mask", "image"])
@pytest.mark.parametrize("how", ["time", "size"])
def test_a_file_of_another_time_or_size_is_read_again(samples, tmp_path, monkeypatch, part, how):
    """A changed image counts as a changed mask does: their sizes must agree."""
    build_index(samples, 4, tmp_path / "cache")
    file = getattr(samples[5], part)
    stat = file.stat()
    if how == "size":
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    read = []
    count = index_module.count_labels
    monkeypatch.setattr(index_module, "count_labels", lambda s, n: read.append(s.name) or count(s, n))
    build_index(samples, 4, tmp_path / "cache")
    assert read == [samples[5].name]


def test_an_image_that_was_exchanged_for_one_of_another_size_is_told(samples, tmp_path):
    build_index(samples, 4, tmp_path / "cache")
    Image.new("RGB", (32, 32)).save(samples[1].image)
    with pytest.raises(UserError, match=r"2007_000001\.png is 64x48, its image 32x32"):
        build_index(samples, 4, tmp_path / "cache")


def test_masks_of_one_class_each_count_for_that_class(tmp_path):
    """As of FSS-1000: a mask of 0 and 1, whose 1 is the class of its folder."""
    mask = np.zeros((6, 8), np.uint8)
    mask[:2], mask[2, :3] = 1, 255
    save_mask(tmp_path / "m.png", mask)
    Image.new("RGB", (8, 6)).save(tmp_path / "i.jpg")
    sample = Sample("i", tmp_path, ("i.jpg", "m.png"), 3)
    assert build_index([sample], 4).pixels.tolist() == [[48 - 16 - 3, 0, 0, 16, 0]]
    mask[5, 5] = 2
    save_mask(tmp_path / "m.png", mask)
    with pytest.raises(UserError, match=r"unknown labels \[2\]; allowed: 0\.\.1 and 255"):
        build_index([sample], 4)


class Hostile:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_cache_never_runs_what_is_in_it(samples, tmp_path):
    wanted = build_index(samples, 4, tmp_path / "cache").pixels
    (file,) = (tmp_path / "cache").iterdir()
    ran = tmp_path / "ran"
    hostile = np.array([Hostile(ran)], object)
    np.savez(file, stamps=hostile, pixels=hostile)
    assert np.array_equal(build_index(samples, 4, tmp_path / "cache").pixels, wanted)
    assert not ran.exists()


def test_masks_of_black_and_white_alone_are_told_with_what_to_do(samples):
    assert white_masks(samples) == ""
    white = np.zeros((48, 64), np.uint8)
    white[9:20, 9:20] = 255
    for sample in samples[3:5]:
        save_mask(sample.mask, white)
    said = white_masks(samples)
    assert said.startswith(
        f"2 of {len(samples)} masks hold 0 and 255 alone, such as {samples[3].mask}; 255 is ignored"
    )
    assert "fss prepare folder" in said
