"""FSS-1000 in its published layout: prepared, indexed, planned and tested."""

import numpy as np
import pytest
from PIL import Image

from fss.cli import main
from fss.config import load_config
from fss.data.source import open_source
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


def test_stage_1_on_more_classes_than_a_label_map_holds(archive, capsys):
    assert prepare(archive) == 0
    (archive / "classes.txt").write_text("".join(f"class {i}\n" for i in range(1, 300)))
    lines = []
    for i in range(1, 300):
        (archive / f"class {i}").mkdir()
        (archive / f"class {i}/1.jpg").write_bytes((archive / "coin/1.jpg").read_bytes())
        lines.append(f"class {i}/1.jpg SegmentationClass/coin/1.png\n")
    for split in ("train", "test"):
        (archive.parent / f"lists/fss1000/{split}.txt").write_text("".join(lines))
    assert (
        main(["pretrain", "--data", "fss1000", *settings(archive), f"output={archive.parent}/out", *TINY])
        == 2
    )
    assert "fss1000 has 299 base classes; stage 1 learns 1 to 254" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("coin\nabacus\n", "two lists"), ("nowhere\n", "1 classes have no folder"), (None, "no test.txt in")],
)
def test_mistakes_in_the_lists(archive, text, message, capsys):
    path = archive.parent / "lists/test.txt"
    path.write_text(text) if text else path.unlink()
    assert prepare(archive) == 2
    assert message in capsys.readouterr().err
