"""From image-level labels to pseudo-masks, and from those to both stages of training."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from fss.cli import main
from fss.data.files import read_mask
from fss.data.source import masks_folder, open_source
from fss.errors import UserError
from fss.l2g import masks as pseudo_masks
from fss.l2g import train as pseudo
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.folders import base_folder, pseudo_folder, train_folder
from fss.runs.identity import require
from tests.make import TINY, make_folder, save_mask

SMALL = (
    "pseudo.epochs=1", "pseudo.batch=4", "pseudo.resize=48", "pseudo.crop=40", "pseudo.local_crop=24",
    "pseudo.local_crops=4", "pseudo.scales=[1.0]", "pseudo.validations=1", "pseudo.pictures=3",
    "pseudo.level=stage3",
)  # fmt: skip
NAMES = [f"2007_{n:06d}" for n in range(16)]


def run(what, root, output, *settings):
    where = [f"data.root={root}", f"output={output}"]
    return main(["pseudo-label", what, "--data", "folder", *where, *TINY, *SMALL, *settings])


def settings_of(root, output, *settings):
    return load_config("folder", "cwt", [f"data.root={root}", f"output={output}", *TINY, *SMALL, *settings])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder set of four classes with pseudo-masks for fold 0."""
    place = tmp_path_factory.mktemp("pseudo")
    root, output = make_folder(place / "set"), place / "results"
    assert run("train", root, output) == 0
    return root, output, root / "SegmentationPseudo/fold0"


def test_masks_hold_each_images_own_base_classes(written):
    root, _, out = written
    for n, name in enumerate(NAMES):
        mask, truth = read_mask(out / f"{name}.png"), read_mask(root / f"SegmentationClass/{name}.png")
        own = {n % 4 + 1, (n + 1) % 4 + 1} - {1}  # fold 0 holds out class 1
        assert mask.shape == truth.shape and set(np.unique(mask)) <= own | {0}
        grey = np.asarray(Image.open(out / f"confidence/{name}.png"))
        assert ((mask > 0) == (grey > 0.25 * 255)).mean() > 0.97  # up to rounding to 8 bits
    assert any(read_mask(out / f"{name}.png").any() for name in NAMES)


def test_what_made_them_and_how_good_they_are(written):
    _, _, out = written
    made = json.loads((out / "pseudo.json").read_text())
    assert (made["background"], made["fold"], made["steps"], made["transfer"]) == (0.25, 0, 4, True)
    quality = json.loads((out / "quality.json").read_text())
    assert quality["images"] == quality["of"] == 16
    row = next(r for r in quality["rows"] if r["background"] == 0.25)
    assert row["per_class"].keys() == {"background", "kind 2", "kind 3", "kind 4"}
    inter = union = 0
    for name in NAMES:
        mask, truth = read_mask(out / f"{name}.png"), read_mask(written[0] / f"SegmentationClass/{name}.png")
        p, t = (mask == 3) & (truth != 255), truth == 3
        inter, union = inter + (p & t).sum(), union + (p | t).sum()
    assert row["per_class"]["kind 3"] == pytest.approx(100 * inter / union, abs=0.01)
    assert len(list((out / "responses").glob("*.jpg"))) == 3


def test_training_again_finds_everything_done(written, capsys):
    before = {p: p.stat().st_mtime_ns for p in (*written[2].rglob("*.png"), *written[1].rglob("*.pt"))}
    assert run("train", *written[:2]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    out = capsys.readouterr().out
    assert "16 pseudo-masks, 16 of them there before" in out and "0.25" in out and "<- as written" in out


def test_other_masks_in_the_same_folder_are_refused(written, tmp_path, capsys):
    assert run("write", *written[:2], "pseudo.background=0.4") == 2
    assert re.search(r"background 0\.25 \(now 0\.4\).*data\.train_masks=DIR", capsys.readouterr().err)
    assert run("write", *written[:2], "pseudo.background=0.4", f"data.train_masks={tmp_path / 'other'}") == 0
    masks = [(read_mask(p / f"{n}.png") > 0).sum() for p in (written[2], tmp_path / "other") for n in NAMES]
    assert sum(masks[16:]) < sum(masks[:16])
    assert run("write", *written[:2], f"data.train_masks={written[0] / 'SegmentationClass'}") == 2
    assert "holds files that pseudo-label did not write" in capsys.readouterr().err


def test_writing_goes_on_where_it_was_stopped(written, tmp_path, monkeypatch):
    out = tmp_path / "again"
    plain, done = pseudo_masks._Image.write, []

    def stopping(self, *arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(self.position)
        return plain(self, *arguments)

    monkeypatch.setattr(pseudo_masks._Image, "write", stopping)
    assert run("write", *written[:2], f"data.train_masks={out}") == 130
    first = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert len(first) == 10 and not (out / "quality.json").exists()
    with (out / "done-0.jsonl").open("a") as file:
        file.write('["2007_0000')  # a line that a kill cut short
    monkeypatch.setattr(pseudo_masks._Image, "write", plain)
    assert run("write", *written[:2], f"data.train_masks={out}") == 0
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())
    for name in (*(f"{n}.png" for n in NAMES), *(f"confidence/{n}.png" for n in NAMES), "quality.json"):
        assert (out / name).read_bytes() == (written[2] / name).read_bytes()


def test_training_goes_on_where_it_was_stopped(written, tmp_path, monkeypatch):
    plain, calls = pseudo.transfer_loss, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(pseudo, "transfer_loss", stopping)
    masks = f"data.train_masks={tmp_path / 'masks'}"
    assert run("train", written[0], tmp_path, masks) == 130
    (path,) = tmp_path.glob("folder/fold0/pseudo_*/last.pt")
    assert checkpoint.read(path)["step"] == 2
    assert run("train", written[0], tmp_path, masks) == 0
    (whole,) = written[1].glob("folder/fold0/pseudo_*/last.pt")
    a, b = (checkpoint.read(p)["model"] for p in (path, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_saliency_for_some_and_the_networks_options(written, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(written[0], root, ignore=shutil.ignore_patterns("SegmentationPseudo"))
    (root / "maps").mkdir()
    for name in NAMES[:6]:
        mask = read_mask(root / f"SegmentationClass/{name}.png")
        Image.fromarray((mask > 0).astype(np.uint8) * 200).save(root / f"maps/{name}.png")
    options = [
        "pseudo.correlation=true",
        "pseudo.frozen_norms=1",
        "pseudo.local_backbone=resnet34",
        "pseudo.flip=true",
    ]
    assert run("train", root, tmp_path, "pseudo.saliency=maps", "pseudo.placement=uniform", *options) == 0
    said = capsys.readouterr().out
    assert "shape transfer for 6 images with saliency maps, attention transfer alone for the other 10" in said
    assert "pseudo_resnet18_local34_random_saliency_correlation" in said
    made = json.loads((root / "SegmentationPseudo/fold0/pseudo.json").read_text())
    assert made["with_saliency"] == 6
    Image.fromarray(np.zeros((48, 63), np.uint8)).save(root / "maps/2007_000002.png")
    assert run("train", root, tmp_path, "pseudo.saliency=maps", "tag=other") == 2
    assert "2007_000002.png is 63x48, its image" in capsys.readouterr().err


def test_global_network_alone_and_labels_from_a_file_without_any_mask(written, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(written[0], root, ignore=shutil.ignore_patterns("SegmentationPseudo"))
    for name in NAMES:
        (root / f"SegmentationClass/{name}.png").unlink()
    labels = tmp_path / "labels.txt"
    lines = [f"{name}, kind {n % 4 + 1}, kind {(n + 1) % 4 + 1}" for n, name in enumerate(NAMES)]
    labels.write_text("\n".join([*lines[:-1], "2007_000015, kind 9"]))
    settings = ["pseudo.transfer=false", f"pseudo.labels={labels}"]
    assert run("train", root, tmp_path, *settings) == 2
    assert re.search(r"labels\.txt line 16: 'kind 9' is no class", capsys.readouterr().err)
    assert not list(tmp_path.rglob("*.pt"))
    labels.write_text("\n".join(lines))
    assert run("train", root, tmp_path, *settings) == 0
    said = capsys.readouterr().out
    assert "global network alone" in said and "as written" not in said  # nothing to measure against
    assert not (root / "SegmentationPseudo/fold0/quality.json").exists()
    config = settings_of(root, tmp_path, "data.train_masks=pseudo").data
    assert len(open_source(config, "train").samples) == 16  # and training finds masks


def test_both_networks_can_start_from_a_classification_network(written, tmp_path, capsys):
    alone = ["pseudo.transfer=false", f"data.train_masks={tmp_path / 'alone'}"]
    assert run("train", written[0], tmp_path, *alone) == 0
    (start,) = tmp_path.glob("folder/fold0/pseudo_*_cam/last.pt")
    config = settings_of(written[0], tmp_path, f"pseudo.start={start}")
    model = pseudo._fresh_or_empty(config, tmp_path / "none", pseudo.open_weak(config))
    state = checkpoint.read(start)["model"]
    for net in (model.network, model.local):
        assert all(torch.equal(v, state[f"network.{k}"]) for k, v in net.state_dict().items())
    (other,) = written[1].glob("folder/fold0/pseudo_*/last.pt")
    assert run("train", written[0], tmp_path, f"pseudo.start={other}") == 2
    assert "transfer is True, wanted False" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(written):
    """CWT, both stages trained on the pseudo-masks and tested."""
    root, output, _ = written
    where = ["--data", "folder", f"data.root={root}", f"output={output}", *TINY]
    assert main(["train", *where, "data.train_masks=pseudo"]) == 0
    return output


def test_training_reads_pseudo_masks_and_testing_true_ones(written):
    root, output, out = written
    data = settings_of(root, output, "data.train_masks=pseudo").data
    train, val = open_source(data, "train"), open_source(data, "val")
    assert all((train.mask(i) == read_mask(out / f"{s.name}.png")).all() for i, s in enumerate(train.samples))
    assert all((val.mask(i) == read_mask(root / f"SegmentationClass/{s.name}.png")).all()
               for i, s in enumerate(val.samples))  # fmt: skip
    seen = [np.bincount(read_mask(out / f"{n}.png").ravel(), minlength=5)[:5] for n in NAMES]
    assert (train.index.pixels == seen).all()  # pools and image counts follow from these
    true = open_source(settings_of(root, output).data, "train")
    assert true.counts_checksum != train.counts_checksum and true.checksum == train.checksum


def test_protocol_folders_and_checkpoints_say_so(trained):
    (path,) = trained.glob("folder/fold0/cwt,steps=10_resnet18_random_masks_pseudo_1shot/test_*/result.json")
    got = json.loads(path.read_text())
    assert got["protocol"]["train_masks"] == "pseudo"
    assert "trained on masks 'pseudo', tested on true ones" in got["protocol_name"]
    for folder in ("base_resnet18_random_masks_pseudo", "cwt,steps=10_resnet18_random_masks_pseudo_1shot"):
        about = checkpoint.read(trained / f"folder/fold0/{folder}/best.pt")["about"]
        assert about["train_masks"] == "pseudo" and len(about["train_masks_sha256"]) == 64
    assert got["checkpoint"]["train_masks_sha256"] == got["checkpoint"]["base"]["train_masks_sha256"]


def test_a_checkpoint_of_pseudo_masks_does_not_pass_for_one_of_true_ones(written, trained, capsys):
    best = next(trained.glob("folder/fold0/cwt*_masks_pseudo_1shot/best.pt"))
    where = ["--data", "folder", f"data.root={written[0]}", f"output={trained}", *TINY]
    assert main(["test", *where, "--checkpoint", str(best)]) == 2
    assert "train_masks is pseudo, wanted None" in capsys.readouterr().err
    assert main(["test", *where, "--checkpoint", str(best), "data.train_masks=pseudo"]) == 0


def test_changed_masks_are_not_gone_on_with(written, trained, tmp_path, capsys):
    path = written[2] / f"{NAMES[1]}.png"
    kept = path.read_bytes()
    save_mask(path, np.full((48, 64), 3, np.uint8))
    try:
        where = ["--data", "folder", f"data.root={written[0]}", f"output={trained}", *TINY]
        assert main(["pretrain", *where, "data.train_masks=pseudo"]) == 2
        assert "train_masks_sha256 is" in capsys.readouterr().err
    finally:
        path.write_bytes(kept)


def test_a_missing_pseudo_mask_is_named_with_the_command_that_writes_it(written, tmp_path, capsys):
    shutil.copytree(written[2], tmp_path / "masks")
    (tmp_path / f"masks/{NAMES[4]}.png").unlink()
    settings = [
        f"data.root={written[0]}",
        f"output={tmp_path}",
        *TINY,
        f"data.train_masks={tmp_path / 'masks'}",
    ]
    assert main(["pretrain", "--data", "folder", *settings]) == 2
    error = capsys.readouterr().err
    assert re.search(r"no mask .*masks/2007_000004\.png for image 2007_000004; 1 of 16 images", error)
    assert "fss pseudo-label write --data folder --fold 0 data.train_masks=" in error
    assert (
        main(["pretrain", "--data", "folder", *settings[:-1], "--fold", "1", "data.train_masks=pseudo"]) == 2
    )
    assert "`fss pseudo-label write --data folder --fold 1` " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "write"], "takes train or write, got train write"),
        (["predict"], "takes train or write, got predict"),
        (["write"], "run `fss pseudo-label train` with the same settings first"),
        (["train", "data.fold=-1"], "has no base classes"),
        (["train", "pseudo.local_crop=500"], "local_crop=500, crop=448"),
        (["train", "pseudo.local_crops=3"], "leaves corners out"),
        (["train", "pseudo.labels=none.txt"], "none.txt cannot be read"),
        (["train", "pseudo.saliency=none"], "pseudo.saliency=none: no such folder"),
        (
            ["train", "data.train_masks=pseudo", "data.novel_in_train=ignore"],
            "novel_in_train=ignore cannot be done",
        ),
    ],
)
def test_mistakes_end_with_code_2(written, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    where = [f"data.root={written[0]}", f"output={tmp_path}/out", "device=cpu", "backbone.weights=random"]
    assert main(["pseudo-label", *arguments, "--data", "folder", *where]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_folder_names_are_what_they_were_where_nothing_is_set():
    config = load_config("shapes", "cwt", ["data.train_masks=true"])
    assert base_folder(config).name == "base_resnet50_random"
    assert train_folder(config).name == "cwt_resnet50_random_1shot"
    assert config == load_config("shapes", "cwt")
    assert str(masks_folder(config.data)) == "data/shapes/SegmentationPseudo/fold0"
    assert pseudo_folder(config).name == "pseudo_resnet50_random"


def test_masks_of_an_older_checkpoint_are_the_true_ones():
    require({"stage": "base"}, {"stage": "base", "train_masks": None}, "old.pt")
    with pytest.raises(UserError, match="train_masks is None, wanted pseudo"):
        require({"stage": "base"}, {"stage": "base", "train_masks": "pseudo"}, "old.pt")
