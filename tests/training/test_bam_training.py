"""BAM from base training to a test: what each stage sees, what it stands on, and K of its weights."""

import json

import pytest
import torch

import fss
from fss.cli import main
from fss.errors import UserError
from fss.model import build_base
from fss.randomness import seeded
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.folders import base_folder, train_folder
from tests.make import TINY, make_folder

PUBLISHED = ["bam_base"]
QUICK = [*(s for s in TINY if not s.startswith("head.")), "head.width=16", "train.augment=none"]


def run(verb, root, output, *more, head="bam"):
    return main([verb, "--data", "folder", "--head", head, f"data.root={root}", f"output={output}", *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A set, and the folder in which BAM was trained with two shots and a prototype head was tested."""
    place = tmp_path_factory.mktemp("bam")
    root, output = make_folder(place / "set", train=24), place / "out"
    assert run("train", root, output, *QUICK, "--shots", "2", "pretrain.size=33") == 0
    more = [s for s in QUICK if not s.startswith("head.")]
    assert run("train", root, output, *more, "network=base", "pretrain.size=33", head="prototype") == 0
    return root, output


def results(output, what):
    return [
        json.loads(p.read_text()) for p in sorted(output.glob(f"folder/fold0/{what}*/test_*/result.json"))
    ]


def test_the_base_network_learns_from_all_images_and_the_head_from_those_without_held_out_classes(trained):
    _, output = trained
    (base,) = output.glob("folder/fold0/base_*/best.pt")
    (head,) = output.glob("folder/fold0/bam*/best.pt")
    abouts = [checkpoint.read(path)["about"] for path in (base, head)]
    assert [about["novel_in_train"] for about in abouts] == ["background", "drop_image"]
    assert [about["size"] for about in abouts] == [33, 49]
    assert base.parent.name == "base_resnet18_random" and "then_drop" in head.parent.name
    (result,) = results(output, "bam")
    assert result["protocol"]["novel_in_training"] == "drop_image"
    assert result["protocol"]["novel_in_base_training"] == "background"


def test_a_result_says_which_base_network_it_stands_on_and_its_miou(trained):
    _, output = trained
    (bam,), (prototype,) = results(output, "bam"), results(output, "prototype")
    assert bam["frozen_sha256"] == prototype["frozen_sha256"]
    base = bam["checkpoint"]["base"]
    (path,) = output.glob("folder/fold0/base_*/best.pt")
    assert base["stage"] == "base" and base["base_miou"] == checkpoint.read(path)["best"]
    assert "novel_in_base_training" not in prototype["protocol"]


def test_weights_of_shots_are_of_the_training_and_another_number_is_noted(trained):
    root, output = trained
    (path,) = output.glob("folder/fold0/bam*/best.pt")
    assert checkpoint.read(path)["model"]["head.shots.kshot_rw.0.weight"].shape == (2, 2, 1, 1)
    assert fss.load_model(path).head.shots.shots == 2
    (same,) = results(output, "bam")
    assert same["shots"] == {"train": 2, "test": 2} and "equal_weights" not in same["scores"]["notes"]
    assert run("test", root, output, *QUICK, "--shots", "3", "pretrain.size=33", "test.runs=1") == 0
    (other,) = [r for r in results(output, "bam") if r["shots"]["test"] == 3]
    assert other["scores"]["notes"]["equal_weights"] == other["scores"]["episodes_run"] == 6


def test_its_published_network_has_a_folder_of_its_own():
    shared, cwt, own = (
        base_folder(load_config("pascal", head, [], recipes))
        for head, recipes in (("bam", []), ("cwt", []), ("bam", PUBLISHED))
    )
    assert shared == cwt != own and own.name == "base_resnet50_classifier_bias=True"
    config = load_config("pascal", "bam", [], PUBLISHED)
    assert (config.base_size, config.data.size, config.pretrain.crop) == (473, 473, 417)
    coco = load_config("coco", "bam", [], [*PUBLISHED, "coco_bam_base"])
    assert (coco.base_size, coco.data.size, coco.pretrain.epochs, coco.train.epochs) == (473, 641, 20, 50)
    assert (config.pretrain.backbone_factor, coco.pretrain.backbone_factor) == (0.1, 1)


def test_folders_of_heads_tell_what_held_out_classes_were_in_their_training():
    names = {
        train_folder(load_config("pascal", "bam", [f"data.novel_in_train={how}"])).name
        for how in ("background", "ignore", "drop_image")
    }
    assert len(names) == 3
    before = train_folder(load_config("pascal", "asgnet", ["data.novel_in_train=ignore"])).name
    assert "novel_ignore" in before and "then" not in before


def test_the_backbone_may_learn_at_a_rate_of_its_own(tmp_path):
    """At a rate of 0 it stays as its weights are, and the rest learns."""
    root = make_folder(tmp_path / "set")
    more = [*(s for s in QUICK if "head." not in s), "pretrain.weight_decay=0"]
    assert run("pretrain", root, tmp_path, *more, "pretrain.backbone_factor=0") == 0
    learnt = checkpoint.read(next(tmp_path.rglob("last.pt")))["model"]
    config = load_config("folder", "bam", [*more, f"data.root={root}"])
    with seeded(config.seed):
        fresh = build_base(config, 3)
    moved = {k.partition(".")[0] for k, p in fresh.named_parameters() if not torch.equal(p, learnt[k])}
    assert moved == {"neck", "classifier"}


def test_pseudo_masks_know_no_held_out_classes_in_base_training_either():
    settings = ["data.train_masks=pseudo", "data.novel_in_train=background", "data.novel_in_base=ignore"]
    with pytest.raises(UserError, match="novel_in_base=ignore cannot be done"):
        load_config("shapes", "bam", settings)
