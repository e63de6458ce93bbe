"""The index: right counts, read once, and the masks that do not fit are named."""

import os

import numpy as np
import pytest

import fss.data.index as index_module
from fss.data.index import build_index
from fss.data.lists import read_list
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
