"""`fss evaluate-own`: each annotated photo is segmented by the others, and counted right."""

import json

import numpy as np
import pytest
from PIL import Image

import fss
from fss.cli import main
from fss.errors import UserError
from fss.photos.evaluate import Score, as_text, evaluate
from fss.photos.prediction import Prediction
from tests.photos.test_predict import NETWORK, SIZE, put, scene


@pytest.fixture(scope="module")
def predictor():
    return fss.Predictor(settings=NETWORK, size=SIZE)


def scenes(count):
    return [scene((4 + 6 * n, 5 + 9 * n), seed=n) for n in range(count)]


def test_scores_are_of_pixels_that_are_known():
    score, truth = Score(), np.array([[1, 1, 0, 255]])
    assert score.add("a", np.array([[True, False, True, True]]), truth) == pytest.approx(100 / 3)
    assert score.add("b", np.array([[True, True, False, False]]), truth) == 100
    assert score.iou == pytest.approx(100 * 3 / 5) and score.photos == ["a", "b"]


def test_each_photo_is_left_out_of_its_own_supports(predictor, monkeypatch):
    """Photos of which one shows another thing: with itself among the supports it would be found."""
    seen = []
    plain = fss.Predictor.__call__

    def spied(self, query, progress=None):
        seen.append([shot.photo for shot in self._supports["x"].shots])
        return plain(self, query, progress)

    monkeypatch.setattr(fss.Predictor, "__call__", spied)
    supports = [fss.Support(i, m, "x") for i, m in scenes(3)]
    scores, worst = evaluate(predictor, supports, quiet=True)
    assert seen == [[1, 2], [0, 2], [0, 1]]
    assert len(scores["x"].photos) == 3 and scores["x"].iou > 50
    assert [w.iou for w in worst] == sorted(w.iou for w in worst) and len(worst) == 3


def test_two_classes_of_one_photo_are_left_out_together(predictor):
    (a, mask), (b, other) = scenes(2)
    supports = [fss.Support(i, m, name) for i, m in ((a, mask), (b, other)) for name in ("x", "y")]
    predictor.learn(supports)
    left = predictor.without(0)
    assert {name: [s.photo for s in c.shots] for name, c in left._supports.items()} == {"x": [1], "y": [1]}
    assert len(predictor._supports["x"].shots) == 2  # the one it came from is as it was


def test_the_command_writes_scores_and_the_worst(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for n, (image, mask) in enumerate(scenes(3)):
        put(tmp_path / f"own/{n}.jpg", image)
        put(tmp_path / f"own/{n}.png", mask * 255)
    words = ["--support", "own", "thing", "--out", "out", "--size", str(SIZE), "--gpus", "cpu", *NETWORK]
    assert main(["evaluate-own", *words]) == 0
    said = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert list(said["thing"]["photos"]) == [f"own/{n}.jpg" for n in range(3)]
    printed = capsys.readouterr().out
    assert f"{said['thing']['iou']:.1f}" in printed and "fewer than 5 photos" in printed
    assert Image.open(tmp_path / "out/worst.jpg").width > 300


def test_poor_scores_are_told_as_such():
    good, bad = Score([90] * 5, [100] * 5, ["a"] * 5), Score([10] * 5, [100] * 5, ["b"] * 5)
    said = as_text({"cat": good, "sign": bad})
    assert "below 40, so that masks will be of little use: sign." in said and "fewer than" not in said
    assert "little use" not in as_text({"cat": good})


def test_one_photo_cannot_be_left_out(predictor):
    with pytest.raises(UserError, match="annotate at least two photos of one class"):
        evaluate(predictor, [fss.Support(*scene((10, 50)), "x")], quiet=True)


def test_a_class_that_one_photo_shows_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = []
    for n, (image, mask) in enumerate(scenes(3)):
        put(tmp_path / f"{n}.jpg", image)
        put(tmp_path / f"{n}.png", mask)
        words += ["--support", f"{n}.jpg", f"{n}.png", "pair" if n else "single"]
    more = ["--out", "out", "--size", str(SIZE), "--gpus", "cpu", *NETWORK]
    assert main(["evaluate-own", *words, *more]) == 0
    assert "one photo alone shows it: single" in capsys.readouterr().out


def test_masks_are_those_of_the_prediction(predictor):
    """What is counted is `Prediction.labels` at the threshold that was asked for."""
    supports = [fss.Support(i, m, "x") for i, m in scenes(2)]
    strict, _ = evaluate(predictor, supports, threshold=0.95, quiet=True)
    loose, _ = evaluate(predictor, supports, threshold=0.05, quiet=True)
    assert sum(strict["x"].either) < sum(loose["x"].either)
    assert isinstance(predictor.learn(supports)(scenes(1)[0][0]), Prediction)
