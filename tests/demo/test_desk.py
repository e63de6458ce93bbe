"""Photos in, masks out, without a browser: a small network on drawn photos."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fss.demo import desk as work
from fss.demo.desk import Desk
from fss.demo.models import NONE, Models
from fss.errors import UserError
from fss.photos.prediction import COLOURS, Prediction
from fss.photos.predictor import Predictor

CPU = torch.device("cpu")
SETTINGS = (
    "backbone.weights=random",
    "backbone.type=resnet18",
    "data.size=49",
    "device=cpu",
    "precision=fp32",
)


def photo(path, size=(60, 80), box=(10, 40, 20, 60)):
    """A red rectangle on noise."""
    image = np.random.default_rng(0).integers(60, 120, (*size, 3)).astype(np.uint8)
    image[box[0] : box[1], box[2] : box[3]] = (230, 30, 30)
    Image.fromarray(image).save(path)
    return path


def paint(shape, where):
    """A layer with red there."""
    out = np.zeros((*shape, 4), np.uint8)
    out[where] = (255, 59, 48, 255)
    return out


def quiet(*_):
    """Nobody listens."""


BOX = np.s_[10:40, 20:60]


@pytest.fixture
def desk(tmp_path):
    """A support that waits to be marked, and two queries of one name."""
    (tmp_path / "a").mkdir()
    supports, problems = work.take([photo(tmp_path / "cup.png")])
    queries, more = work.take(
        [photo(tmp_path / "q.png"), photo(tmp_path / "a/q.png", (40, 50), (5, 25, 5, 25))]
    )
    assert problems == more == []
    return Desk(supports, queries)


@pytest.fixture(scope="module")
def models():
    return Models(lambda path: Predictor(path, settings=SETTINGS))


def test_files_that_are_no_photos_are_named_and_the_others_taken(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no photo")
    photos, problems = work.take([text, photo(tmp_path / "a.png", (1200, 1800))])
    assert [p.path.name for p in photos] == ["a.png"]
    assert photos[0].size == (1200, 1800) and photos[0].small.shape == (600, 900, 3)
    assert len(problems) == 1 and "text.jpg is damaged or of an unknown format" in str(problems[0])


def test_painting_becomes_the_mask(desk):
    cup = desk.supports[0]
    work.mark(cup, [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    assert cup.support.kind == "mask" and cup.support.name == "cup" and cup.support.image == cup.path
    assert (cup.support.marks[BOX] == 1).all() and cup.support.marks.sum() == 30 * 40
    (picture, caption), = work.thumbnails(desk.supports, desk.classes)  # fmt: skip
    assert (
        caption == "cup" and (picture[:5] == cup.small[:5]).all() and (picture[BOX] != cup.small[BOX]).any()
    )


@pytest.mark.parametrize("way", ["scribble", "box"])
def test_strokes_become_a_mask(desk, way):
    line = np.s_[12:38, 22:58] if way == "box" else np.s_[24:27, 24:56]
    work.mark(desk.supports[0], [paint((60, 80), line)], way, "cup", None, CPU)
    made = desk.supports[0].support.marks
    assert (made[line] == 1).mean() > 0.9 and made[:, 70:].sum() == 0


def test_names_are_classes_and_photos_of_one_name_its_shots(desk, models, tmp_path):
    more, _ = work.take([photo(tmp_path / f"{n}.png") for n in range(2)])
    desk.supports += more
    for support, name in zip(desk.supports, ("cup", "plate", "cup"), strict=True):
        work.mark(support, [paint((60, 80), BOX)], "paint", name, None, CPU)
    list(work.segment(desk, models, NONE, None, quiet, quiet))
    assert desk.classes == desk.found[0].small.classes == ["cup", "plate"]
    assert [name for name, _, _ in work.shares(desk.found[0], 0.5)] == ["cup", "plate"]
    assert desk.found[0].odds.shape[0] == 2


def test_a_failed_marking_changes_nothing(desk, tmp_path):
    cup = desk.supports[0]
    work.mark(cup, [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    before = cup.support
    with pytest.raises(UserError, match="nothing is marked red"):
        work.mark(cup, [], "paint", "cup", None, CPU)
    with pytest.raises(UserError, match="not what the editor shows"):
        work.mark(cup, [paint((80, 80), BOX)], "paint", "cup", None, CPU)
    wrong = tmp_path / "wrong.png"
    Image.fromarray(np.ones((9, 9), np.uint8)).save(wrong)
    with pytest.raises(UserError, match=r"9x9.*80x60"):
        work.mark(cup, [], "file", "cup", wrong, CPU)
    assert cup.support is before


def several(folder, count):
    """A desk with photos to mark."""
    return Desk(work.take([photo(folder / f"{n}.png") for n in range(count)])[0])


def test_the_way_to_mark_is_kept_and_a_marked_photo_has_its_own(tmp_path):
    desk, layers, nothing = several(tmp_path, 4), [paint((60, 80), BOX)], [paint((60, 80), np.s_[:0])]
    assert desk.way == "paint"
    work.mark_what_is_new(desk, layers, "paint", "cup", None, CPU)
    desk.leave(layers, "scribble")  # chosen on the first photo, for the second
    desk.at = 1
    assert desk.way == "scribble"
    desk.leave(nothing, "scribble")
    desk.at = 0
    assert desk.way == "paint"  # its own
    desk.leave(layers, "paint")
    desk.at = 2
    assert desk.way == "scribble"  # the last that was chosen
    desk.leave(layers, "box")  # drawn, and not used yet
    desk.at = 3
    assert desk.way == "box"
    desk.leave(nothing, "file")
    desk.at = 2
    assert desk.way == "box" and (desk.current.drawn[0] == layers[0]).all()
    desk.at = 1
    assert desk.way == "file" and Desk().way == "paint"


def test_the_next_photo_is_one_that_is_not_marked(tmp_path):
    desk = several(tmp_path, 3)
    for at, after in ((1, 2), (2, 0), (0, 0)):
        desk.at = at
        work.mark_what_is_new(desk, [paint((60, 80), BOX)], "paint", "cup", None, CPU)
        desk.go_on()
        assert desk.at == after


def test_the_mask_is_shown_as_it_was_understood(desk):
    cup = desk.supports[0]
    assert work.with_mask(cup, desk.classes) is cup.small
    work.mark(cup, [paint((60, 80), BOX)], "box", "cup", None, CPU)
    shown = work.with_mask(cup, desk.classes)
    assert shown.shape == cup.small.shape and ((shown != cup.small).any(2)[cup.mask]).mean() > 0.99


def test_what_is_drawn_is_used_without_being_asked_and_once(desk):
    cup, layers = desk.supports[0], [paint((60, 80), BOX)]
    work.mark_what_is_new(desk, [paint((60, 80), np.s_[:0])], "paint", "cup", None, CPU)
    assert cup.support is None
    work.mark_what_is_new(desk, layers, "paint", "cup", None, CPU)
    first = cup.support
    work.mark_what_is_new(desk, [layers[0].copy()], "paint", "cup", None, CPU)
    assert first is not None and cup.support is first
    work.mark_what_is_new(desk, layers, "paint", "mug", None, CPU)
    assert cup.support.name == "mug"
    work.mark_what_is_new(Desk(), layers, "paint", "mug", None, CPU)


def test_reasons_to_expect_little_are_told_before_anything_is_computed(desk, models):
    work.mark(desk.supports[0], [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    told, steps = (
        [],
        work.segment(desk, models, NONE, None, quiet, lambda text: told.append((text, desk.found))),
    )
    next(steps)
    assert told == [("the network started from random weights, not from ImageNet's", [])]
    plain = Models(lambda path: Predictor(path, settings=("device=cpu", "precision=fp32")))
    next(work.segment(desk, plain, NONE, None, quiet, lambda text: told.append(text)))
    assert len(told) == 1


def test_segment_look_and_save(desk, models, tmp_path):
    work.mark(desk.supports[0], [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    said = []
    assert list(
        work.segment(desk, models, NONE, None, lambda share, text: said.append((share, text)), quiet)
    ) == [
        0,
        1,
    ]
    assert said[-1] == (0.5, "photo 2 of 2")
    found = desk.found[0]
    direct = models.load(NONE)(desk.queries[0].path)
    assert (found.odds == direct.odds).all()
    for view, want in (("overlay", direct.overlay(0.4)), ("mask", COLOURS[direct.labels(0.4)])):
        assert (work.picture(found, view, 0.4) == want).all()
    assert work.picture(found, "probability", 0.4).shape == (60, 80, 3)
    (name, colour, part), = work.shares(found, 0.4)  # fmt: skip
    assert (name, colour) == ("cup", tuple(COLOURS[1])) and part == pytest.approx(
        100 * direct.labels(0.4).mean()
    )
    out = tmp_path / "out"
    out.mkdir()
    paths = work.files(desk.found, 0.4, out)
    assert [p.name for p in paths] == ["masks.zip", "q_mask_cup.png", "q_2_mask_cup.png"]
    assert (np.asarray(Image.open(paths[1])) == 255 * direct.labels(0.4)).all()
    assert Image.open(paths[2]).size == (50, 40)
    with zipfile.ZipFile(paths[0]) as archive:
        parts = ("labels.png", "overlay.jpg", "mask_cup.png", "probability_cup.png")
        assert sorted(archive.namelist()) == sorted(f"{q}_{p}" for q in ("q", "q_2") for p in parts)
        assert archive.testzip() is None
    assert sorted(out.iterdir()) == sorted(paths)


def test_tiles_tell_how_far_they_are(desk, models):
    work.mark(desk.supports[0], [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    del desk.queries[1]
    said = []
    list(work.segment(desk, models, NONE, 48, lambda share, text: said.append((share, text)), quiet))
    shares, texts = zip(*said, strict=True)
    assert texts[-1] == "photo 1 of 1, tile 4 of 4" and shares[-1] == 1 and list(shares) == sorted(shares)
    assert desk.found[0].odds.shape == (1, 60, 80)


def test_what_is_missing_is_said(desk, models, tmp_path):
    run = lambda: list(work.segment(desk, models, NONE, None, quiet, quiet))  # noqa: E731
    with pytest.raises(UserError, match="mark the object"):
        run()
    work.mark(desk.supports[0], [paint((60, 80), BOX)], "paint", "cup", None, CPU)
    desk.queries = []
    with pytest.raises(UserError, match="drop at least one photo"):
        run()
    with pytest.raises(UserError, match="press Segment"):
        work.files([], 0.5, tmp_path)


def test_large_photos_are_looked_at_small_and_saved_large(tmp_path):
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[200:600, 500:1500] = 255
    Image.fromarray(image).save(path := tmp_path / "large.png")
    odds = np.where(image[::10, ::10, 0] > 0, 3, -3).astype(np.float32)[None]
    found = work.Found(path, odds, work.small(Prediction(image, ["a"], odds)))
    assert work.picture(found, "mask", 0.5).shape == (450, 900, 3)
    assert work.shares(found, 0.5)[0][2] == pytest.approx(20, abs=0.5)
    out = tmp_path / "out"
    out.mkdir()
    mask = np.asarray(Image.open(work.files([found], 0.5, out)[1]))
    assert mask.shape == (1000, 2000) and ((mask > 0) == (image[..., 0] > 0)).mean() > 0.99
