"""Checkpoints that the page offers, and models that are loaded once."""

import os
from pathlib import Path

import pytest

from fss.demo.models import KEPT, NONE, Models, checkpoints, choices
from fss.errors import UserError


def put(path: Path, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_checkpoints_newest_first(tmp_path):
    old = put(tmp_path / "shapes/fold0/cwt_1shot/best.pt", 50)
    new = put(tmp_path / "own/fold1/base_resnet50/last.pt", 10)
    put(tmp_path / "own/fold1/base_resnet50/last-1.pt")
    put(tmp_path / "own/fold1/pseudo_resnet50/best.pt")
    put(tmp_path / "cache/other.pt")
    assert checkpoints(tmp_path) == [new, old]
    assert checkpoints(tmp_path / "nowhere") == []


def test_the_given_one_comes_first_and_once(tmp_path):
    best = put(tmp_path / "r/shapes/fold0/cwt_1shot/best.pt")
    last = put(tmp_path / "r/shapes/fold0/cwt_1shot/last.pt", 1)
    given = put(tmp_path / "given.pt")
    words = [w for w, _ in choices(tmp_path / "r", given)]
    assert words == [str(given), "Installed: ImageNet features", "shapes · fold0 · cwt_1shot · best",
                     "shapes · fold0 · cwt_1shot · last"]  # fmt: skip
    assert [p for _, p in choices(tmp_path / "r", last)] == [str(last), NONE, str(best)]


def test_what_is_installed_comes_first_unless_a_checkpoint_is_given(tmp_path):
    best = put(tmp_path / "shapes/fold0/cwt_1shot/best.pt")
    assert [p for _, p in choices(tmp_path, None)] == [NONE, str(best)]
    assert [p for _, p in choices(tmp_path / "nowhere", None)] == [NONE]


class Fake:
    def __init__(self, path):
        self.path, self.learnt = path, []

    def learn(self, supports, tile):
        if "bad" in supports:
            raise UserError("bad support")
        self.learnt.append((supports, tile))
        return self


def test_models_are_loaded_once_and_anew_when_their_file_changes(tmp_path):
    made: list[Path | None] = []
    models = Models(lambda path: made.append(path) or Fake(path))
    file = put(tmp_path / "a.pt")
    first = models.load(str(file))
    assert models.load(f" {file} ") is first and made == [file]
    put(file, 5)
    assert models.load(str(file)) is not first and made == [file, file]
    assert len(models._loaded) == 1
    models.load(NONE)
    for name in "bcd":
        models.load(str(put(tmp_path / f"{name}.pt")))
    assert len(models._loaded) == KEPT and made[2] is None


def test_supports_are_learnt_when_they_differ(tmp_path):
    models = Models(Fake)
    one, two = object(), object()
    predictor = models.learnt(NONE, [one])
    assert models.learnt(NONE, [one]) is predictor and len(predictor.learnt) == 1
    models.learnt(NONE, [one, two])
    with pytest.raises(UserError, match="bad support"):
        models.learnt(NONE, ["bad"])
    models.learnt(NONE, [one, two])
    assert models.learnt(NONE, [one, two], 48) is predictor
    assert predictor.learnt == [([one], "auto"), *2 * [([one, two], "auto")], ([one, two], 48)]


def test_no_such_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*none\.pt; name a \.pt file"):
        Models(Fake).load(str(tmp_path / "none.pt"))
