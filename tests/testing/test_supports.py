"""Supports annotated with strokes, boxes or points, end to end: made once, named, same for any workers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fss.cli import main
from fss.data.canvas import Canvas
from fss.data.files import read_mask
from fss.data.source import open_source
from fss.episode import IGNORE
from fss.recipes import load_config
from fss.scribbles.masks import MaskMaker
from fss.testing.supports import Pair, SupportMasks
from fss.training.pipeline import _finished
from tests.make import TINY, make_folder

QUICK = [s for s in TINY if not s.startswith(("head.", "test."))] + [
    "test.runs=2",
    "test.episodes=4",
    "test.checkpoint=best",
]
CASES = [
    ("scribble", "clustering"), ("scribble", "grabcut"), ("scribble", "drawn"), ("box", "grabcut"),
    ("box", "drawn"), ("points", "grabcut"), ("points", "drawn"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("supports")
    make_folder(place / "set", val=8)
    return place


def run(place, out, *settings):
    where = [f"data.root={place / 'set'}", f"output={out}"]
    return main(["test", "--data", "folder", "--head", "prototype", *where, *QUICK, *settings])


def result(out):
    (found,) = out.rglob("result.json")
    return json.loads(found.read_text()), found.parent


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_every_kind_of_annotation(place, tmp_path, capsys, kind, method):
    out = tmp_path / "out"
    assert run(place, out, f"test.support={kind}", f"test.support_by={method}") == 0
    said, folder = result(out)
    assert f"_{kind}_{method}_" in folder.name
    assert said["protocol"]["support"]["kind"] == kind
    assert said["supports"]["method"] == method and said["supports"]["masks"] > 0
    assert 0 < said["supports"]["miou_with_truth"] <= 100
    assert f"supports: {kind} by {method}" in said["protocol_name"]
    assert f"made from {kind} by {method}" in capsys.readouterr().out
    assert 0 <= said["scores"]["miou"] <= 100


def test_true_masks_are_the_old_protocol(place, tmp_path):
    assert run(place, tmp_path) == 0
    said, folder = result(tmp_path)
    assert "support" not in said["protocol"] and "supports" not in said
    assert folder.name == "test_1shot_2x4_seed2021_base" and "supports:" not in said["protocol_name"]
    # A result from before the setting was there is still found to be done.
    settings = [f"data.root={place / 'set'}", f"output={tmp_path}", *QUICK]
    assert _finished(load_config("folder", "prototype", settings)) == folder / "result.json"
    del said["config"]["test"]["support"], said["config"]["test"]["support_by"]
    (folder / "result.json").write_text(json.dumps(said))
    assert _finished(load_config("folder", "prototype", settings)) == folder / "result.json"
    assert _finished(load_config("folder", "prototype", [*settings, "test.support=box"])) is None


def test_made_once_and_the_same_with_any_number_of_workers(place, tmp_path):
    asked = ["test.support=scribble", "test.support_by=clustering"]
    counts = []
    for workers in (0, 2):
        out = tmp_path / f"by{workers}"
        assert run(place, out, *asked, f"data.workers={workers}") == 0
        counts.append(result(out)[0]["scores"]["counts"])
    assert counts[0] == counts[1]
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "by0/cache/supports").iterdir()}
    assert kept and all(p.suffix == ".png" for p in kept)  # and no half-written file
    broken = next(iter(kept))
    broken.write_bytes(broken.read_bytes()[:20])
    assert run(place, tmp_path / "by0", *asked) == 0
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "by0/cache/supports").iterdir()}
    assert [p for p in kept if kept[p] != again[p]] == [broken]  # made anew, alone
    assert result(tmp_path / "by0")[0]["scores"]["counts"] == counts[0]


def test_two_processes_share_the_masks_and_count_the_same(place, tmp_path):
    asked = ["test.support=points", "test.support_by=grabcut"]
    assert run(place, tmp_path / "one", *asked) == 0
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "fss",
    ]
    where = [f"data.root={place / 'set'}", f"output={tmp_path / 'two'}"]
    command = [*launch, "test", "--data", "folder", "--head", "prototype", *where, *QUICK, *asked]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, two = result(tmp_path / "one")[0], result(tmp_path / "two")[0]
    assert one["scores"]["counts"] == two["scores"]["counts"] and one["supports"] == two["supports"]


def test_pictures_show_marks_and_made_masks(place, tmp_path):
    for kind in ("mask", "box"):
        assert (
            run(place, tmp_path / kind, f"test.support={kind}", "test.support_by=drawn", "--visualize") == 0
        )
    pictures = [sorted((tmp_path / k).rglob("run0_00000_*.jpg")) for k in ("mask", "box")]
    assert all(len(p) == 1 for p in pictures)
    assert pictures[0][0].read_bytes() != pictures[1][0].read_bytes()


def make_one(place, tmp_path, kind="scribble", seed=0):
    source = open_source(load_config("folder", "prototype", [f"data.root={place / 'set'}"]).data, "val")
    cpu = torch.device("cpu")
    return SupportMasks(source, Canvas(49), MaskMaker(kind, "grabcut"), seed, tmp_path, cpu, False)


def test_masks_fit_the_canvas_and_marks_are_settled_by_the_seed(place, tmp_path):
    masks = make_one(place, tmp_path)
    key = Pair(0, 1)
    assert np.isin(1, read_mask(masks.source.samples[0].mask))
    canvas = masks(*key)
    assert canvas.shape == (49, 49) and canvas.dtype == torch.uint8
    assert set(canvas.unique().tolist()) == {0, 1, IGNORE}  # the image is not square
    made, marks = masks.picture(*key)
    assert (make_one(place, tmp_path).marks(key) == marks).all()
    assert (make_one(place, tmp_path, seed=1).marks(key) != marks).any()
    assert (made[marks != IGNORE] == marks[marks != IGNORE]).all()
    absent = Pair(0, 4)  # the image shows classes 1 and 2
    assert masks.load(absent) is None and masks.marks(absent) is None
    assert not (masks(*absent) == 1).any()


@pytest.mark.parametrize("setting", ["test.support=lasso", "test.support_by=magic"])
def test_unknown_annotations(place, tmp_path, capsys, setting):
    assert run(place, tmp_path / "out", setting) == 2
    assert setting.split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
