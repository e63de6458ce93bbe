"""Held-out classes in training images: background, ignored, or the image left out."""

import json

import numpy as np
import pytest

from fss.cli import main
from fss.config import PretrainConfig
from fss.data.canvas import Canvas
from fss.data.episodes import PictureSet
from fss.data.files import read_mask
from fss.data.labelled import LabelledSet
from fss.data.source import open_source
from fss.errors import UserError
from fss.recipes import load_config
from tests.make import TINY, make_folder

NOVEL = 1  # of fold 0 of four classes; image n shows classes n % 4 + 1 and (n + 1) % 4 + 1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder set of four classes."""
    return make_folder(tmp_path_factory.mktemp("novel") / "set")


def opened(root, how, split="train", folds=4):
    settings = [f"data.root={root}", "data.size=49", f"data.novel_in_train={how}", f"data.folds={folds}"]
    return open_source(load_config("folder", "prototype", settings).data, split)


def test_background_keeps_masks_as_they_are(root):
    source = opened(root, "background")
    assert all(np.array_equal(source.mask(i), read_mask(s.mask)) for i, s in enumerate(source.samples))
    assert len(source.samples) == 16 and (source.mask(0) == NOVEL).any()


def test_ignored_pixels_are_255_in_both_stages(root):
    source = opened(root, "ignore")
    for i, sample in enumerate(source.samples):
        stored = read_mask(sample.mask)
        assert (source.mask(i)[stored == NOVEL] == 255).all()
        assert np.array_equal(source.mask(i)[stored != NOVEL], stored[stored != NOVEL])
    assert not (PictureSet(source, Canvas(49))[0].labels == NOVEL).any()
    labels = LabelledSet(source, 49, PretrainConfig(), 0)[(-1, 0)].labels
    published = LabelledSet(opened(root, "background"), 49, PretrainConfig(), 0)[(-1, 0)].labels
    assert ((labels == 255) & (published == 0)).any() and (labels != 255).any()


def test_images_with_novel_pixels_are_left_out(root):
    source = opened(root, "drop_image")
    names = [s.name for s in source.samples]
    assert names == [f"2007_{n:06d}" for n in range(16) if n % 4 not in (0, 3)]
    assert source.index.names == tuple(names) and not source.index.pixels[:, NOVEL].any()
    assert source.checksum == opened(root, "background").checksum


def test_test_images_are_never_touched(root):
    for how in ("ignore", "drop_image"):
        val = opened(root, how, "val")
        assert len(val.samples) == 12 and any((val.mask(i) == NOVEL).any() for i in range(12))


def test_nothing_left_is_an_error(root):
    with pytest.raises(UserError, match="leaves none; take background or ignore"):
        opened(root, "drop_image", folds=1)


def test_the_protocol_says_so_and_folders_are_apart(root, tmp_path):
    quick = [s for s in TINY if not s.startswith("head.")] + [f"data.root={root}", f"output={tmp_path}"]
    head = ["--head", "prototype", "head.level=neck", "network=base"]
    for how in ("background", "ignore"):
        assert main(["train", "--data", "folder", *head, *quick, f"data.novel_in_train={how}"]) == 0
    results = [json.loads(p.read_text()) for p in tmp_path.rglob("result.json")]
    assert {r["protocol"]["novel_in_training"] for r in results} == {"background", "ignore"}
    assert len({r["frozen_sha256"] for r in results}) == 2
    assert len(list(tmp_path.glob("folder/fold0/base_*"))) == 2
