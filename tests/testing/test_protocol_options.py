"""What a protocol may be told, end to end: both checkpoints, sampling, label size, another domain."""

import json
from pathlib import Path

import pytest
import torch

from fss.cli import main
from fss.data.plan import plan_hash
from fss.data.source import open_source
from fss.recipes import load_config
from fss.testing.plans import make_plans, planner_for
from fss.training.validation import VALIDATION_SEED
from tests.make import TINY, make_folder, make_voc


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A set, and CWT trained on its fold 0 with the last and the best checkpoint tested."""
    place = tmp_path_factory.mktemp("options")
    make_folder(place / "set")
    assert run(place, "train", "test.checkpoint=both") == 0
    return place


def run(place, verb, *settings):
    where = [f"data.root={place / 'set'}", f"output={place / 'out'}"]
    return main([verb, "--data", "folder", *where, *TINY, *settings])


def results(folder) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in Path(folder).rglob("result.json")}


def test_last_and_best_are_both_reported(place, tmp_path, capsys):
    both = {n: r for n, r in results(place / "out").items() if n.startswith("test_1shot_2x6_seed2021_")}
    assert {n.rpartition("_")[2] for n in both} == {"best", "last"}
    steps = {n.rpartition("_")[2]: r["checkpoint"]["steps"] for n, r in both.items()}
    assert steps["last"] == 3 and steps["best"] in (0, 3)
    assert len({r["protocol"]["plan_sha256"] for r in both.values()}) == 1
    assert run(place, "test", "test.checkpoint=both") == 0
    out = capsys.readouterr().out
    assert "last checkpoint, of step 3: mIoU" in out and "protocol: folder, 4 contiguous folds" in out
    assert (
        main(["report", *(str(p) for p in (place / "out").rglob("test_1shot_2x6_seed2021_*/result.json"))])
        == 0
    )
    table = " ".join(capsys.readouterr().out.split())
    assert "| cwt | best | 1-shot" in table and "| cwt | last | 1-shot" in table


def test_training_twice_gives_the_same_bits(place, tmp_path):
    """The whole pipeline from the same seed, in two folders: weights, curve and counts."""
    where = [
        "--data",
        "folder",
        f"data.root={place / 'set'}",
        f"output={tmp_path}",
        *TINY,
        "test.checkpoint=last",
    ]
    assert main(["train", *where]) == 0
    (again,) = results(tmp_path).values()
    (first,) = (r for n, r in results(place / "out").items() if n == "test_1shot_2x6_seed2021_last")
    assert again["scores"] == first["scores"] and again["frozen_sha256"] == first["frozen_sha256"]
    one, two = (next(p.glob("folder/fold0/cwt*/last.pt")) for p in (place / "out", tmp_path))
    weights, same = (torch.load(p, weights_only=True)["model"] for p in (one, two))
    assert weights.keys() == same.keys() and all(torch.equal(w, same[k]) for k, w in weights.items())


def test_checkpoints_are_chosen_on_other_episodes_than_reported(place):
    settings = [f"data.root={place / 'set'}", *TINY]
    config = load_config("folder", "cwt", settings)
    source = open_source(config.data, "val")
    reported = [d for plan in make_plans(config, source) for d in plan]
    chooser = planner_for(config, source, source.novel, 1, VALIDATION_SEED + config.test.seed)
    chosen = chooser.run(0, config.train.validation_episodes)
    assert {d.seed for d in reported}.isdisjoint(d.seed for d in chosen)
    assert plan_hash([chosen], source) != plan_hash([reported[: len(chosen)]], source)


def test_every_option_makes_another_protocol(place):
    assert run(place, "test", "test.sampling=class") == 0
    assert run(place, "test", "test.sampling=pair") == 0
    assert run(place, "test", "test.label_size=common") == 0
    every = [r for n, r in results(place / "out").items() if n.endswith("best") or "_best_" in n]
    assert len(every) == 4 and len({r["protocol_name"].rpartition("[")[2] for r in every}) == 4
    sampled = {r["protocol"]["sampling"].split()[0] for r in every}
    assert sampled == {"query", "class", "pairs"}
    assert {r["protocol"]["label_size"] for r in every} == {"49 px canvas", "original"}
    files = [str(p) for p in (place / "out").rglob("result.json")]
    assert main(["report", *files]) == 2


def test_trained_on_one_set_and_tested_on_another(tmp_path, capsys):
    """COCO's fold 0 on PASCAL: only the classes whose names COCO held out, and the table says so."""
    names = make_voc(tmp_path / "coco", classes=80, images=80)
    line = "JPEGImages/{0}.jpg SegmentationClass/{0}.png\n"
    for split in ("train", "val"):
        (tmp_path / f"coco_{split}.txt").write_text("".join(line.format(n) for n in names))
    names = make_voc(tmp_path / "voc", classes=20, images=40)
    (tmp_path / "voc_val.txt").write_text("".join(line.format(n) for n in names))
    out = f"output={tmp_path / 'out'}"
    lists = [f"data.{s}_list={tmp_path}/coco_{s}.txt" for s in ("train", "val")]
    assert main(["train", "--data", "coco", f"data.root={tmp_path / 'coco'}", *lists, out, *TINY]) == 0
    where = [f"data.root={tmp_path / 'voc'}", f"data.val_list={tmp_path}/voc_val.txt"]
    many = [*TINY, "test.episodes=40", "test.runs=1"]
    assert main(["test", "--data", "coco_to_pascal", *where, out, *many]) == 0
    (path,) = (tmp_path / "out/coco/fold0").glob("cwt*/test_coco_to_pascal_1shot_*/result.json")
    got = json.loads(path.read_text())
    kept = {"aeroplane", "boat", "chair", "diningtable", "dog", "person"}
    assert set(got["scores"]["per_class"]) | set(got["scores"]["unseen_classes"]) == kept
    assert got["protocol"]["trained_on"] == "coco" and got["protocol"]["data"] == "coco_to_pascal"
    assert "folds of coco, its classes left out" in got["protocol_name"]
    assert main(["test", "--data", "coco_to_pascal", "--fold", "1", *where, out, *many]) == 2
    assert "no checkpoint" in (error := capsys.readouterr().err) and "--data coco --fold 1" in error
