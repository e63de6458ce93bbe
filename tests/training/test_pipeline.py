"""The whole way, in small: both trainings and the test, on a folder set and on a tree in PASCAL's layout."""

import csv
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fss.backbones.frozen import checksum
from fss.cli import main
from fss.runs import checkpoint
from tests.make import TINY, make_folder, make_voc

PLAN = "plan_sha256"


def run(verb, root, output, *settings, data="folder"):
    return main(
        [verb, "--data", data, "--shots", "1", f"data.root={root}", f"output={output}", *TINY, *settings]
    )


def result(output, pattern="*") -> dict:
    (path,) = Path(output).glob(f"*/fold*/{pattern}/test_*/result.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder set with four classes, trained and tested on fold 0."""
    place = tmp_path_factory.mktemp("trained")
    root, output = make_folder(place / "my set"), place / "results"
    assert run("train", root, output) == 0
    return root, output


def test_result_says_what_was_measured(trained):
    got = result(trained[1], "cwt*")
    assert got["scores"]["per_class"].keys() == {"kind 1"}
    assert 0 <= got["scores"]["miou"] <= 100 and got["scores"]["interval"] is not None
    assert got["scores"]["episodes_run"] == 12
    assert got["protocol"]["episodes"] == 6 and got["protocol"]["runs"] == 2
    assert len(got["protocol"][PLAN]) == len(got["frozen_sha256"]) == 64
    assert got["shots"] == {"train": 1, "test": 1}
    assert got["checkpoint"]["steps"] in (0, 3) and got["checkpoint"]["base"]["base_miou"] >= 0
    last = checkpoint.read(next(trained[1].glob("folder/fold0/cwt*/last.pt")))
    assert last["facts"]["steps"] == 3
    counts = got["scores"]["counts"]["kind 1"]
    iou = 100 * counts["intersection"][1] / counts["union"][1]
    assert iou == pytest.approx(got["scores"]["per_class"]["kind 1"], abs=1e-3)


def test_episodes_add_up_to_the_result(trained):
    (path,) = trained[1].glob("folder/fold0/cwt*/test_1shot_2x6_*best/result.json")
    got = json.loads(path.read_text())
    with path.with_name("episodes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(int(e["run"]), int(e["number"])) for e in lines] == [(r, i) for r in range(2) for i in range(6)]
    for side in ("intersection", "union"):
        assert sum(int(e[side]) for e in lines) == got["scores"]["counts"]["kind 1"][side][1]
    names = (trained[0] / "ImageSets/Segmentation/val.txt").read_text().split()
    for e in lines:
        assert e["class"] == "kind 1" and e["query"] in names and e["support_1"] in {*names} - {e["query"]}
        assert float(e["iou"]) == pytest.approx(100 * int(e["intersection"]) / int(e["union"]), abs=1e-4)


def test_run_folder_holds_all_that_is_promised(trained):
    (folder,) = trained[1].glob("folder/fold0/cwt*")
    names = {p.name for p in folder.iterdir()}
    assert {"last.pt", "best.pt", "config.yaml", "environment.json", "tensorboard"} <= names
    assert list((folder / "tensorboard").iterdir())
    assert not list(trained[1].rglob("*.part"))


def test_frozen_network_is_bit_identical_after_stage_2(trained):
    base = torch.load(next(trained[1].glob("folder/fold0/base*/best.pt")), weights_only=True)["model"]
    after = torch.load(next(trained[1].glob("folder/fold0/cwt*/last.pt")), weights_only=True)["model"]
    frozen = {k: v for k, v in after.items() if not k.startswith("head.")}
    assert frozen and all(torch.equal(v, base[k]) for k, v in frozen.items())
    assert any("running_mean" in k for k in frozen) and any("num_batches_tracked" in k for k in frozen)


def test_counts_do_not_depend_on_workers_or_batch(trained, tmp_path):
    root, output = trained
    found = next(output.glob("folder/fold0/cwt*/best.pt"))
    seen = []
    for n, settings in enumerate(
        (["data.workers=0"], ["data.workers=2"], ["data.workers=4", "test.batch=3"], ["cache_gib=0"])
    ):
        home = tmp_path / str(n)
        home.mkdir()
        (home / "best.pt").write_bytes(found.read_bytes())
        assert main([
            "test", "--data", "folder", "--checkpoint", str(home / "best.pt"), f"data.root={root}",
            f"output={output}", *TINY, *settings,
        ]) == 0  # fmt: skip
        (path,) = output.glob("folder/fold0/given_best_*/test_*/result.json")
        got = json.loads(path.read_text())
        seen.append(
            (got["protocol"][PLAN], got["scores"]["counts"], path.with_name("episodes.csv").read_bytes())
        )
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_training_again_finds_everything_done(trained, capsys):
    before = {p: p.stat().st_mtime_ns for p in trained[1].rglob("*.pt")}
    assert run("train", *trained) == 0
    assert {p: p.stat().st_mtime_ns for p in trained[1].rglob("*.pt")} == before
    assert "base network found" in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(trained, capsys):
    assert run("train", *trained, "train.lr=0.5") == 2
    assert "lr=0.001 (now 0.5)" in capsys.readouterr().err


def test_pictures_one_per_episode_and_a_sheet(trained):
    assert (
        main(
            [
                "test",
                "--data",
                "folder",
                "--visualize",
                f"data.root={trained[0]}",
                f"output={trained[1]}",
                *TINY,
            ]
        )
        == 0
    )
    (folder,) = trained[1].rglob("visualize")
    assert len(list(folder.glob("run*_iou*.jpg"))) == 12
    assert (folder / "contact_sheet.jpg").stat().st_size > 1000


def test_five_shots_on_a_one_shot_checkpoint_say_both(trained, tmp_path, capsys):
    args = [
        "test",
        "--data",
        "folder",
        "--shots",
        "2",
        f"data.root={trained[0]}",
        f"output={trained[1]}",
        *TINY,
    ]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "tested with 2 shot(s), trained with 1" in out


def test_original_label_size_is_another_protocol(trained):
    assert run("test", *trained, "test.label_size=original") == 0
    (path,) = trained[1].glob("folder/fold0/*/test_1shot*_original_*/result.json")
    got = json.loads(path.read_text())
    assert got["protocol"]["label_size"] == "original"
    union = got["scores"]["counts"]["kind 1"]["union"]
    assert union[0] > 12 * 1000  # 48 x 64 pixels an episode, where the canvas has 32 x 48


def test_plain_inner_loop_needs_no_training(trained):
    assert run("test", *trained, "head.transformer=false") == 0
    got = result(trained[1], "cwt,*transformer=False*")
    assert got["head"]["transformer"] is False and got["shots"]["train"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.fold=1"], "no checkpoint"),
        (["head.heads=2", "--checkpoint", "BEST"], "head is cwt with heads=4, wanted cwt with heads=2"),
        (["data.fold=1", "--checkpoint", "BEST"], "fold is 0, wanted 1"),
        (["backbone.type=resnet34", "--checkpoint", "BEST"], "backbone is resnet18, wanted resnet34"),
        (["data.size=57", "--checkpoint", "BEST"], "size is 49, wanted 57"),
        (["--checkpoint", "BASE"], "stage is base, wanted few-shot"),
        (["--checkpoint", "nowhere.pt"], "no file nowhere.pt"),
        (["--checkpoint", "CUT"], "truncated"),
        (["head.stepz=3"], "takes no 'stepz', did you mean steps"),
        (["test.shots=50"], "too few images for 50 shots.*kind 1"),
    ],
)
def test_wrong_inputs_end_with_code_2_and_a_reason(trained, tmp_path, capsys, settings, message):
    files = {"BEST": next(trained[1].glob("folder/fold0/cwt*/best.pt")), "CUT": tmp_path / "cut.pt"}
    files["BASE"] = next(trained[1].glob("folder/fold0/base*/best.pt"))
    files["CUT"].write_bytes(files["BEST"].read_bytes()[:5000])
    assert run("test", *trained, *(str(files.get(s, s)) for s in settings)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_pascal_tree_with_palettes_trains_and_tests(tmp_path):
    root = tmp_path / "VOC2012"
    names = make_voc(root, 20, 60, masks="SegmentationClassAug")
    line = "JPEGImages/{0}.jpg SegmentationClassAug/{0}.png\n".format
    for split, part in (("train", names[:40]), ("val", names[40:])):
        (root / f"{split}.txt").write_text("".join(map(line, part)))
    lists = ["data.train_list=train.txt", "data.val_list=val.txt"]
    assert run("train", root, tmp_path / "results", *lists, data="pascal") == 0
    got = result(tmp_path / "results")
    assert got["scores"]["per_class"].keys() == {"aeroplane", "bicycle", "bird", "boat", "bottle"}
    assert got["protocol"]["published_list"] is False


def test_pascal_without_data_or_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "pascal", "--gpus", "cpu"]) == 2
    assert "no data folder data/pascal" in capsys.readouterr().err
    make_voc(tmp_path / "data/pascal", 20, 40)
    lists = tmp_path / "data/pascal/ImageSets/Segmentation"
    (lists / "all.txt").write_text("\n".join(f"2007_{n:06d}" for n in range(40)))
    options = [
        "data.train_list=ImageSets/Segmentation/all.txt",
        "data.val_list=ImageSets/Segmentation/all.txt",
    ]
    assert main(["train", "--data", "pascal", "--gpus", "cpu"]) == 2
    assert "no list lists/pascal/train.txt" in capsys.readouterr().err
    assert main(["train", "--data", "pascal", "--gpus", "cpu", *options]) == 2
    assert "no weights for ResNet-50" in capsys.readouterr().err
    assert not list(Path("results").rglob("*.pt"))


def test_error_in_a_loader_worker_is_one_clean_line(trained, tmp_path, capsys):
    root = make_folder(tmp_path / "set")
    assert run("pretrain", root, tmp_path / "out") == 0
    broken = root / "JPEGImages/2007_000016.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    gc.collect()
    gc.disable()
    try:
        assert run("test", root, tmp_path / "out", "head.transformer=false", "data.workers=2") == 2
        # One that is left to the garbage collector closes its pipes in any order, and files with them.
        assert not [o for o in gc.get_objects() if type(o) is _MultiProcessingDataLoaderIter]
    finally:
        gc.enable()
    err = capsys.readouterr().err
    assert "2007_000016.jpg is damaged" in err and "Traceback" not in err


def test_stage_1_learns(tmp_path):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    longer = [
        "pretrain.epochs=15",
        "pretrain.optimizer=adamw",
        "pretrain.lr=0.002",
        "pretrain.vertical_flip=false",
    ]
    assert run("pretrain", root, output, *longer, "pretrain.scale=[1,1]", "pretrain.rotate=0") == 0
    (path,) = output.glob("folder/fold0/base*/best.pt")
    assert checkpoint.read(path)["best"] > 25  # colours tell the classes; guessing gives about 10


def test_first_weights_come_from_the_seed(tmp_path):
    root = make_folder(tmp_path / "set")
    sums = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("pretrain", root, tmp_path / name, "pretrain.epochs=0", f"seed={seed}") == 0
        (path,) = (tmp_path / name).glob("folder/fold0/base*/best.pt")
        sums.append(checkpoint.read(path)["facts"]["backbone_sha256"])
    assert sums[0] == sums[1] != sums[2]


def test_every_class_can_be_tested_with_a_named_checkpoint(trained, capsys):
    best = str(next(trained[1].glob("folder/fold0/cwt*/best.pt")))
    assert run("test", *trained, "data.fold=-1") == 2
    assert "--checkpoint" in capsys.readouterr().err
    assert run("test", *trained, "data.fold=-1", "--checkpoint", best, "tag=all") == 0
    assert "kind 4" in capsys.readouterr().out


def test_zero_budget_sets_the_norms_statistics_only(tmp_path):
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    assert run("pretrain", root, output, "pretrain.epochs=0") == 0
    (path,) = output.glob("folder/fold0/base*_untrained/best.pt")
    state = checkpoint.read(path)["model"]
    assert not np.allclose(state["backbone.layer0.1.running_mean"], 0)
    assert torch.equal(state["backbone.layer1.0.bn2.weight"], torch.full((64,), 0.2))


def test_checksum_sees_a_single_bit():
    net = torch.nn.BatchNorm2d(2)
    before = checksum(net)
    net.running_mean[0] += 1e-7
    assert checksum(net) != before


def test_training_from_cached_features(trained):
    settings = ["train.cache=true", "train.augment=none", "tag=cached", "test.checkpoint=last"]
    assert run("train", *trained, *settings) == 0
    (folder,) = trained[1].glob("folder/fold0/cwt*_cached")
    start, end = (checkpoint.read(folder / f"{name}.pt") for name in ("best", "last"))
    assert end["facts"]["steps"] == 3
    head = [k for k in end["model"] if k.startswith("head.")]
    fresh = checkpoint.read(next(trained[1].glob("folder/fold0/cwt*_1shot/last.pt")))["model"]
    assert any(not torch.equal(end["model"][k], fresh[k]) for k in head)  # other images, other weights
    assert all(torch.equal(v, start["model"][k]) for k, v in end["model"].items() if k not in head)


def test_two_processes_train(tmp_path):
    """Both trainings under torchrun with gloo; the global batch, not the process's, decides the steps."""
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    args = ["-m", "fss", "train", "--data", "folder", f"data.root={root}", f"output={output}", *TINY]
    args.append("test.checkpoint=last")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *args], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    got = result(output)
    assert (got["checkpoint"]["steps"], got["checkpoint"]["base"]["steps"]) == (3, 2)
    assert got["checkpoint"]["processes"] == 2 and got["scores"]["episodes_run"] == 12


def test_two_processes_count_the_same(trained, tmp_path):
    root, output = trained
    args = ["--data", "folder", f"data.root={root}", *TINY, "test.episodes=7", "test.batch=2"]
    assert main(["test", *args, f"output={output}"]) == 0
    first = next(output.glob("folder/fold0/cwt*/test_1shot_2x7_*/result.json"))
    one = json.loads(first.read_text())
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "fss",
        "test",
    ]
    copy = tmp_path / "best.pt"
    copy.write_bytes(next(output.glob("folder/fold0/cwt*/best.pt")).read_bytes())
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings = [*args, "--checkpoint", str(copy), f"output={tmp_path}"]
    done = subprocess.run([*launch, *settings], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    second = next(tmp_path.glob("test_*/result.json"))
    two = json.loads(second.read_text())
    assert two["scores"] == one["scores"] and two["protocol"] == one["protocol"]
    assert second.with_name("episodes.csv").read_bytes() == first.with_name("episodes.csv").read_bytes()
