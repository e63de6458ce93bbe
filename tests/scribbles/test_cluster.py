"""`fss cluster`: what it writes, that it repeats itself, goes on where it was stopped, what it refuses."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fss.cli import main
from fss.data.files import read_image, read_mask
from fss.runs import memory
from fss.scribbles import cluster as verb
from tests.scribbles.test_clustering import picture

QUICK = ["--channels", "12", "--steps", "12", "--gpus", "cpu"]


@pytest.fixture(autouse=True)
def memory_as_it_is(monkeypatch):
    """The verb's own setting would hold for all tests after these."""
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: None)


def test_freed_memory_is_kept_where_glibc_is(monkeypatch):
    asked = []
    library = type("Library", (), {"mallopt": staticmethod(lambda *a: asked.append(a))})
    monkeypatch.undo()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    memory.keep_freed_memory()
    assert asked == [(-4, 0), (-1, -1)]  # no mmap for large blocks, no trimming
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # a C library without it
    memory.keep_freed_memory()


@pytest.fixture
def photo(tmp_path):
    image, scribble, _ = picture()
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(scribble).save(tmp_path / "drawn.png")
    return tmp_path


def run(*arguments):
    return main(["cluster", *map(str, arguments), *QUICK])


def test_one_photo_of_no_use_does_not_stop_the_others(tmp_path, capsys):
    image = picture()[0]
    for name in "ac":
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"in/{name}.png")
    Image.fromarray(image[:1, :1]).save(tmp_path / "in/b.png")
    (tmp_path / "in/d.gif").write_bytes(b"x")
    assert run(tmp_path / "in", tmp_path / "out", "--steps", "3") == 2
    said, error = capsys.readouterr()
    assert "b.png has 1x1 pixels; clustering needs 2 a side" in said and "d.gif: GIF is not read" in said
    assert "2 of 4 images" in error and (tmp_path / "out/c_labels.png").is_file()


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_scribbled_photo(photo, capsys):
    asked = (photo / "photo.png", photo / "out", "--scribble", photo / "drawn.png", "--seed", "4")
    assert run(*asked) == 0
    labels = read_mask(photo / "out/photo_labels.png")
    mask = read_mask(photo / "out/photo_mask3.png")
    assert labels.shape == (48, 64) and ((mask == 255) == (labels == 3)).all() and (mask == 255).any()
    told = json.loads((photo / "out/photo_cluster.json").read_text())
    assert told["steps"] == 12 and 0 < told["marks_right"] <= 1 and 3 in told["labels"]
    assert read_image(photo / "out/photo_cluster.jpg").shape[1] > 2 * 64
    assert sorted(files(photo / "out")) == [
        "photo_cluster.jpg", "photo_cluster.json", "photo_labels.png", "photo_mask3.png",
    ]  # fmt: skip

    before = files(photo / "out")
    assert run(*asked) == 0 and "done already" in capsys.readouterr().out
    assert files(photo / "out") == before
    assert run(asked[0], photo / "again", *asked[2:]) == 0
    assert files(photo / "again")["photo_labels.png"] == before["photo_labels.png"]
    assert run(*asked[:4], "--seed", "5") == 0  # another seed, another result in its place
    assert json.loads((photo / "out/photo_cluster.json").read_text())["about"]["seed"] == 5


def test_points_watching_and_no_marks_at_all(photo):
    assert run(photo / "photo.png", photo / "p", "--points", "32,24,1", "3,3,0", "--watch", "5") == 0
    names = set(files(photo / "p"))
    assert {"photo_mask1.png", "photo_step00005.jpg", "photo_step00010.jpg"} <= names
    assert run(photo / "photo.png", photo / "p") == 0  # unsupervised: what stood there belonged to the clicks
    left = set(files(photo / "p"))
    assert not any("step" in name for name in left)
    labels = np.unique(read_mask(photo / "p/photo_labels.png"))
    assert {n for n in left if "mask" in n} == {f"photo_mask{v}.png" for v in labels}


def test_published_settings_are_one_flag(photo, monkeypatch):
    jobs = []
    monkeypatch.setattr(verb, "run_cluster", jobs.append)
    assert main(["cluster", str(photo / "photo.png"), str(photo / "o"), "--published", "--lr", "0.2"]) == 0
    s = jobs[0].settings
    assert (s.channels, s.blocks, s.lr, s.momentum, s.steps) == (100, 2, 0.2, 0.9, 1000)
    assert (s.weights, s.size, s.settled, s.min_labels) == ((1.0, 1.0, 0.5), None, 0, None)


def test_stopped_runs_go_on_to_the_same_result(photo, monkeypatch):
    asked = (photo / "photo.png", photo / "out", "--scribble", photo / "drawn.png")
    assert run(*asked[:1], photo / "whole", *asked[2:]) == 0
    monkeypatch.setattr(verb, "_SAVE_EVERY", 0)
    step = verb.Session.step

    def stopped(session):
        if session.steps == 7:
            raise KeyboardInterrupt
        return step(session)

    monkeypatch.setattr(verb.Session, "step", stopped)
    assert run(*asked) == 130
    assert sorted(files(photo / "out")) == ["photo_unfinished.json", "photo_unfinished.pt"]
    seen = []
    monkeypatch.setattr(verb.Session, "step", lambda s: seen.append(s.steps) or step(s))
    assert run(*asked) == 0
    assert seen == [7, 8, 9, 10, 11]
    found, whole = files(photo / "out"), files(photo / "whole")
    assert found["photo_labels.png"] == whole["photo_labels.png"] and not [
        n for n in found if "unfinished" in n
    ]


def test_reference_mode(photo, tmp_path, monkeypatch, capsys):
    few = tmp_path / "few"
    few.mkdir()
    for n in range(2):
        Image.fromarray(np.roll(read_image(photo / "photo.png"), n, 2)).save(few / f"{n}.png")
    assert run(few, tmp_path / "out", "--reference", few) == 0
    names = set(files(tmp_path / "out"))
    assert {"weights.pt", "0_labels.png", "1_labels.png"} <= names
    kept = tmp_path / "out/weights.pt"
    assert run(photo / "photo.png", tmp_path / "more", "--weights", kept) == 0
    assert (read_mask(tmp_path / "more/photo_labels.png") == read_mask(tmp_path / "out/0_labels.png")).all()
    before = kept.read_bytes()
    assert run(few, tmp_path / "out", "--reference", few) == 0 and kept.read_bytes() == before
    assert run(few, tmp_path / "out", "--reference", few, "--seed", "9") == 2
    assert "seed is 0, wanted 9" in capsys.readouterr().err
    assert main(["cluster", str(few), str(tmp_path / "x"), "--weights", str(kept), "--gpus", "cpu"]) == 2
    assert "channels is 12, wanted" in capsys.readouterr().err
    parameters = torch.load(kept, weights_only=True)["model"]
    assert all(torch.isfinite(p).all() for p in parameters.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png", "out"], "gone.png does not exist"),
        (["text.png", "out"], "text.png is damaged or of an unknown format"),
        (["photo.png", "photo.png"], "photo.png is a file; name a folder"),
        (["photo.png", "out", "--scribble", "gone.png"], "mask gone.png does not exist"),
        (["photo.png", "out", "--scribble", "photo.png"], "has colours; save it as a grey or palette PNG"),
        (["photo.png", "out", "--scribble", "small.png"], "scribble is 10x10, the image 64x48"),
        (["photo.png", "out", "--scribble", "ground.png"], r"marks background \(0\) only"),
        (["photo.png", "out", "--scribble", "drawn.png", "--channels", "3"], "label 3; allowed: 0"),
        (["photo.png", "out", "--points", "70,3,1"], "point 70,3 is outside of the image"),
        (["photo.png", "out", "--points", "7,3,12"], "point 7,3 has label 12; allowed: 0"),
        (["photo.png", "out", "--points", "7,3"], "'7,3': wanted X,Y,LABEL"),
        (["photo.png", "out", "--points", "7,3,1", "--scribble", "drawn.png"], "one of them"),
        (["photo.png", "out", "--reference", "empty", "--weights", "w.pt"], "one of them"),
        (["photo.png", "out", "--reference", "empty"], "no images in empty"),
        (["photo.png", "out", "--weights", "drawn.png"], "drawn.png"),
        (["empty", "out"], "no images in empty"),
        (["twins", "out"], "have one name, so that results would mix"),
        (["folder", "out", "--points", "1,1,1"], "for a single image"),
        (["photo.png", "out", "--lr", "0"], "lr 0.*allowed"),
        (["photo.png", "out", "--watch", "-1"], "--watch -1"),
        (["photo.png", "out", "--seed", "-1"], "--seed -1; allowed"),
        (["photo.png", "taken"], "photo_labels.png is a folder"),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(photo, monkeypatch, capsys, arguments, message):
    import re

    monkeypatch.chdir(photo)
    (photo / "text.png").write_text("no image")
    (photo / "empty").mkdir()
    (photo / "taken/photo_labels.png").mkdir(parents=True)
    (photo / "twins").mkdir()
    (photo / "folder").mkdir()
    for name in ("twins/a.png", "twins/a.jpg", "folder/a.png"):
        Image.new("RGB", (20, 20)).save(photo / name)
    Image.new("L", (10, 10), 1).save(photo / "small.png")
    Image.new("L", (64, 48), 0).save(photo / "ground.png")
    before = sorted(p.relative_to(photo) for p in photo.rglob("*"))
    last = [] if "--channels" in arguments else QUICK[:2]
    assert main(["cluster", *arguments, *last, *QUICK[2:]]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(p.relative_to(photo) for p in photo.rglob("*")) == before
