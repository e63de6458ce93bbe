"""The fold tables: PASCAL-5i, COCO-20i by both schemes, and what cross-domain tests leave out."""

import pytest

from fss.cli import main
from fss.data.classes import class_names, fold_classes
from fss.data.coco import COCO_CLASSES
from fss.data.folds import base_classes
from fss.data.voc import PASCAL_CLASSES
from fss.errors import UserError
from fss.recipes import load_config

FOLDS = range(4)


def classes(data, fold):
    return fold_classes(load_config(data, "prototype", [f"data.fold={fold}"]).data)


@pytest.mark.parametrize("fold", FOLDS)
def test_pascal_holds_out_five_in_a_row(fold):
    got = classes("pascal", fold)
    assert got.novel == [5 * fold + i for i in (1, 2, 3, 4, 5)]
    assert sorted(got.base + got.novel) == list(range(1, 21)) and len(got.base) == 15


@pytest.mark.parametrize("fold", FOLDS)
def test_coco_holds_out_every_fourth(fold):
    got = classes("coco", fold)
    assert got.novel == list(range(fold + 1, 81, 4)) and len(got.novel) == 20
    assert sorted(got.base + got.novel) == list(range(1, 81))
    assert got.trained == [COCO_CLASSES[c - 1] for c in got.base]


@pytest.mark.parametrize("fold", FOLDS)
def test_coco_contiguous_holds_out_twenty_in_a_row(fold):
    got = classes("coco_contiguous", fold)
    assert got.novel == list(range(20 * fold + 1, 20 * fold + 21))
    assert sorted(got.base + got.novel) == list(range(1, 81))


@pytest.mark.parametrize("data", ["pascal", "coco", "coco_contiguous"])
def test_fold_minus_one_tests_every_class(data):
    got = classes(data, -1)
    assert got.novel == list(range(1, len(got.names) + 1)) and got.base == []


def test_names_stand_where_their_labels_are():
    assert len(PASCAL_CLASSES) == 20 and len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert [PASCAL_CLASSES.index(n) + 1 for n in ("aeroplane", "car", "cat", "person", "tvmonitor")] == [
        1, 7, 8, 15, 20,
    ]  # fmt: skip
    assert [COCO_CLASSES.index(n) + 1 for n in ("person", "car", "cat", "dog", "tv", "toothbrush")] == [
        1, 3, 16, 17, 63, 80,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fold", "kept"),
    [(0, [1, 4, 9, 11, 12, 15]), (1, [2, 6, 13, 18]), (2, [3, 7, 16, 17, 19, 20]), (3, [5, 8, 10, 14])],
)
def test_coco_to_pascal_keeps_what_coco_held_out(fold, kept):
    got = classes("coco_to_pascal", fold)
    assert got.novel == kept and got.base == [] and len(got.trained) == 60


@pytest.mark.parametrize("fold", FOLDS)
def test_pascal_to_coco_leaves_out_fifteen_names(fold):
    got = classes("pascal_to_coco", fold)
    left_out = {COCO_CLASSES[c - 1] for c in range(1, 81) if c not in got.novel}
    assert len(got.novel) == 65 and len(left_out) == 15
    assert got.trained == [PASCAL_CLASSES[c - 1] for c in base_classes(20, fold, 4, "contiguous")]
    if fold == 0:
        assert {"couch", "potted plant", "tv", "dining table", "motorcycle", "dog"} <= left_out
        assert "airplane" not in left_out and "elephant" not in left_out


def test_a_cross_domain_set_is_not_trained_on(capsys):
    assert main(["train", "--data", "coco_to_pascal", "--fold", "2", "backbone.weights=random"]) == 2
    error = capsys.readouterr().err
    assert (
        "is for testing what was trained on coco; train there: "
        "fss train --data coco --fold 2 --layers resnet50 --shots 1" in error
    )


@pytest.mark.parametrize(
    ("data", "setting", "message"),
    [
        ("coco_to_pascal", "data.folds=2", "folds=4, scheme=interleaved; got folds=2"),
        ("coco_to_pascal", "data.scheme=contiguous", "got folds=4, scheme=contiguous"),
        ("fss1000", "data.folds=2", "not into folds=2; allowed: 1"),
    ],
)
def test_settings_that_would_say_what_is_not_so(data, setting, message):
    with pytest.raises(UserError, match=message):
        load_config(data, "prototype", [setting])


def test_names_are_compared_without_case(tmp_path):
    (tmp_path / "classes.txt").write_text("Airplane\nAEROPLANE now\nTV\nbicycle\n")
    where = [f"data.root={tmp_path}", "data.layout=folder", "data.fold=1"]
    got = fold_classes(load_config("coco_to_pascal", "prototype", where).data)
    assert [got.names[c - 1] for c in got.novel] == ["AEROPLANE now", "bicycle"]


def test_names_that_voc_and_coco_spell_differently_are_the_same_class(tmp_path):
    other = {"Aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
             "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}  # fmt: skip
    (tmp_path / "classes.txt").write_text("\n".join(other))
    for fold in FOLDS:
        where = [f"data.root={tmp_path}", "data.layout=folder", f"data.fold={fold}"]
        got = fold_classes(load_config("coco_to_pascal", "prototype", where).data)
        held_out = {COCO_CLASSES[c - 1] for c in range(fold + 1, 81, 4)}
        assert [got.names[c - 1] for c in got.novel] == [n for n, o in other.items() if o in held_out], fold


@pytest.mark.parametrize(
    ("names", "folds", "message"),
    [
        (["a", "b", "c"], 4, "has 3 classes, which cannot make data.folds=4; allowed: 2 to 3"),
        (["a", "b"], 3, "has 2 classes, which cannot make data.folds=3; allowed: 2 to 2"),
        (["a"], 2, "has one class. Training needs two or more"),
    ],
)
def test_fewer_classes_than_folds_are_told(tmp_path, names, folds, message):
    (tmp_path / "classes.txt").write_text("\n".join(names))
    where = [f"data.root={tmp_path}", f"data.folds={folds}", "data.fold=0"]
    with pytest.raises(UserError, match=message):
        class_names(load_config("folder", "prototype", where).data)


def test_as_many_classes_as_folds_are_enough(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    where = [f"data.root={tmp_path}", "data.folds=3", "data.fold=1"]
    got = fold_classes(load_config("folder", "prototype", where).data)
    assert (got.names, got.base, got.novel, got.trained) == (("a", "b", "c"), [1, 3], [2], ["a", "c"])


def fss1000(root, train, val, select=()):
    """Lists of images of one class each, as of FSS-1000."""
    (root / "classes.txt").write_text("a\nb\nc\n")
    for split, names in (("train", train), ("val", val), ("select", select)):
        lines = [f"{name}/1.jpg {name}/1.png" for name in names]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for name in names:
            (root / name).mkdir(exist_ok=True)
            (root / name / "1.jpg").touch()
    lists = [f"data.{split}_list={root / split}.txt" for split in ("train", "val", "select")]
    return [f"data.root={root}", "data.layout=fss1000", "data.folds=1", "data.fold=0", *lists]


def test_lists_say_what_is_trained_on_and_held_out(tmp_path):
    config = load_config("fss1000", "prototype", fss1000(tmp_path, ["a"], ["c"], ["b", "c"])).data
    for split, novel in (("val", [3]), ("train", [3]), ("select", [2, 3])):
        got = fold_classes(config, split)
        assert (got.base, got.novel, got.trained) == ([1], novel, ["a"])
    every = load_config(
        "fss1000", "prototype", [*fss1000(tmp_path, ["a"], ["c"], ["b"]), "data.fold=-1"]
    ).data
    assert fold_classes(every).base == []
    both = load_config("fss1000", "prototype", fss1000(tmp_path, ["a", "c"], ["c"], ["b"])).data
    with pytest.raises(UserError, match=r"in the training list and in that of val: \['c'\]"):
        fold_classes(both)


@pytest.mark.parametrize(("layout", "most"), [("fss1000", 10_000), ("folder", 254)])
def test_a_folder_names_as_many_classes_as_its_masks_can_tell_apart(tmp_path, monkeypatch, layout, most):
    asked = []
    monkeypatch.setattr(
        "fss.data.classes.read_classes", lambda root, most: asked.append((root, most)) or ("a",)
    )
    where = [f"data.root={tmp_path}", f"data.layout={layout}", "data.folds=1", "data.fold=0"]
    assert class_names(load_config("folder", "prototype", where).data) == ("a",)
    assert asked == [(tmp_path, most)]
