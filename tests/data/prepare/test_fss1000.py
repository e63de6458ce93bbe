"""FSS-1000 in its published layout: prepared, indexed, planned and tested."""

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.data.source import open_source
from fss.recipes import load_config
from tests.make import TINY

CLASSES = {"trn": ["ab_wheel", "abacus", "zebra"], "val": ["apple"], "test": ["pidan", "coin"]}


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "fewshot_data"
    for c, name in enumerate([n for names in CLASSES.values() for n in names]):
        (root / name).mkdir(parents=True)
        for i in range(1, 11):
            picture, mask = np.full((48, 48, 3), 20 * c + 60, np.uint8), np.zeros((48, 48, 3), np.uint8)
            mask[8 : 20 + c, 8 : 20 + i] = 255
            picture[mask > 0] = 30 * c
            Image.fromarray(picture).save(root / name / f"{i}.jpg")
            # Three channels here, one there: both are around.
            Image.fromarray(mask if i % 2 else mask[..., 0]).save(root / name / f"{i}.png")
    (tmp_path / "lists").mkdir()
    for split, names in CLASSES.items():
        (tmp_path / f"lists/{split}.txt").write_text("\n".join(names) + "\n")
    return root


def prepare(root):
    lists = root.parent / "lists"
    given = ["--root", str(root), "--splits", str(lists), "--lists", str(lists / "fss1000")]
    return main(["prepare", "fss1000", *given])


def settings(root):
    lists = root.parent / "lists/fss1000"
    named = {"train": "train", "select": "val", "val": "test"}
    return [f"data.root={root}", *(f"data.{k}_list={lists}/{v}.txt" for k, v in named.items())]


def test_classes_are_those_of_the_published_lists(archive):
    assert prepare(archive) == 0
    config = load_config("fss1000", "asgnet", settings(archive)).data
    train, select, test = (open_source(config, split) for split in ("train", "select", "val"))
    names = lambda source, labels: [source.classes[c - 1] for c in labels]  # noqa: E731
    assert names(train, train.base) == CLASSES["trn"] == list(train.base_names)
    assert names(select, select.novel) == CLASSES["val"]
    assert names(test, test.novel) == sorted(CLASSES["test"])
    assert test.samples[0].name == "coin/1" and len(test.samples) == 20
    coin = test.classes.index("coin") + 1
    assert test.index.pixels[0].nonzero()[0].tolist() == [0, coin]
    assert set(np.unique(test.mask(0))) == {0, 1} and test.value(coin) == 1


def test_trains_and_tests(archive, tmp_path, capsys):
    assert prepare(archive) == 0
    options = ["--data", "fss1000", "--head", "asgnet", *settings(archive), f"output={tmp_path / 'out'}"]
    tiny = [s for s in TINY if not s.startswith(("head.", "data.min_pixels", "train.episodes"))]
    extra = ["train.episodes=4", "train.augment=none", "head.sizes=[7,4,2,1]", "head.cells=4"]
    assert main(["train", *options, *tiny, *extra]) == 0
    out = capsys.readouterr().out
    assert "coin" in out and "pidan" in out and "abacus" not in out


def test_base_training_on_more_classes_than_a_label_map_holds(archive, capsys):
    assert prepare(archive) == 0
    (archive / "classes.txt").write_text("".join(f"class {i}\n" for i in range(1, 300)))
    lines = []
    for i in range(1, 300):
        (archive / f"class {i}").mkdir()
        (archive / f"class {i}/1.jpg").write_bytes((archive / "coin/1.jpg").read_bytes())
        lines.append(f"class {i}/1.jpg SegmentationClass/coin/1.png\n")
    (archive.parent / "lists/fss1000/train.txt").write_text("".join(lines))
    with (archive / "classes.txt").open("a") as names:
        names.write("coin\npidan\n")
    assert (
        main(["pretrain", "--data", "fss1000", *settings(archive), f"output={archive.parent}/out", *TINY])
        == 2
    )
    assert "fss1000 has 299 base classes; base training learns 1 to 254" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("coin\nabacus\n", "two lists"), ("nowhere\n", "1 classes have no folder"), (None, "no test.txt in")],
)
def test_mistakes_in_the_lists(archive, text, message, capsys):
    path = archive.parent / "lists/test.txt"
    path.write_text(text) if text else path.unlink()
    assert prepare(archive) == 2
    assert message in capsys.readouterr().err


def test_held_out_classes_in_training_images_change_nothing(archive):
    """Each image shows one class, which is none of those held out."""
    assert prepare(archive) == 0
    for how in ("ignore", "drop_image"):
        config = load_config("fss1000", "asgnet", [*settings(archive), f"data.novel_in_train={how}"]).data
        source = open_source(config, "train")
        assert len(source.samples) == 30 and set(np.unique(source.mask(0))) == {0, 1}


def test_base_training_learns_each_folder_as_its_class(archive):
    from fss.config import PretrainConfig
    from fss.data.labelled import LabelledSet

    assert prepare(archive) == 0
    source = open_source(load_config("fss1000", "asgnet", settings(archive)).data, "train")
    data = LabelledSet(source, 49, PretrainConfig(), 0)
    seen = {
        s.name.split("/")[0]: set(data.load((-1, i)).labels.unique().tolist())
        for i, s in enumerate(source.samples)
    }
    assert seen == {"ab_wheel": {0, 1, 255}, "abacus": {0, 2, 255}, "zebra": {0, 3, 255}}


def test_a_class_to_train_on_and_to_test(archive, capsys):
    assert prepare(archive) == 0
    lists = archive.parent / "lists/fss1000"
    lines = (lists / "test.txt").read_text().splitlines()
    (lists / "test.txt").write_text("\n".join(lines[1:]) + "\n")
    (lists / "train.txt").write_text((lists / "train.txt").read_text() + lines[0] + "\n")
    assert main(["check-data", "fss1000", *settings(archive), f"output={archive.parent}/out"]) == 2
    assert "classes are in the training list and in that of val: ['coin']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((48, 48), np.uint8), "shows nothing"),
        (np.full((48, 48), 900, np.uint16), "has mode I;16"),
    ],
)
def test_masks_that_say_nothing(archive, mask, message, capsys):
    Image.fromarray(mask).save(archive / "coin/3.png")
    assert prepare(archive) == 2
    assert message in capsys.readouterr().err


def test_masks_of_0_and_1(archive):
    picture = np.zeros((48, 48), np.uint8)
    picture[3:9] = 1
    Image.fromarray(picture).save(archive / "coin/3.png")
    assert prepare(archive) == 0
    config = load_config("fss1000", "asgnet", settings(archive)).data
    source = open_source(config, "val")
    (i,) = [i for i, s in enumerate(source.samples) if s.name == "coin/3"]
    assert np.array_equal(source.mask(i), picture)
