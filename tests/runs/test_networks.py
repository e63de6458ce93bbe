"""Heads on other networks than the base network of the run: on weights as they come, on a given base."""

import json
import os
import subprocess
import sys

import pytest
import torch

from fss.cli import main
from fss.data.canvas import Canvas
from fss.data.files import read_image
from fss.runs import checkpoint
from tests.make import TINY, make_folder

QUICK = [s for s in TINY if not s.startswith("head.")]
SMALL = ["head.width=8", "head.sizes=[7,4]", "head.cells=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder set, and where runs go."""
    place = tmp_path_factory.mktemp("networks")
    make_folder(place / "set")
    return place


def run(place, verb, head, *settings):
    where = [f"data.root={place / 'set'}", f"output={place / 'results'}"]
    return main([verb, "--data", "folder", "--head", head, *where, *QUICK, *settings])


def result(place, pattern):
    (path,) = (place / "results/folder/fold0").glob(f"{pattern}/test_*/result.json")
    return json.loads(path.read_text())


def test_asgnet_trains_on_bare_weights_with_its_own_views(place):
    """As published: no base training, no neck, augmented views, an epoch as long as the query list."""
    settings = [*SMALL, "train.episodes=null", "tag=bare"]
    assert run(place, "train", "asgnet", *settings) == 0
    assert run(place, "test", "asgnet", *settings, "--shots", "2", "test.label_size=network") == 0
    (home,) = (place / "results/folder/fold0").glob("asgnet*_nostage1_1shot_bare")
    content = checkpoint.read(home / "best.pt")
    assert content["about"]["neck"] is None and not any(k.startswith("neck") for k in content["model"])
    assert checkpoint.read(home / "last.pt")["step"] == 8  # 16 query images, two a step
    (two,) = home.glob("test_2shot_*/result.json")
    assert json.loads(two.read_text())["shots"] == {"train": 1, "test": 2}
    (one,) = home.glob("test_1shot_*/result.json")
    assert json.loads(one.read_text())["protocol"]["label_size"] == "original"
    assert not list((place / "results/folder/fold0").glob("base_*"))
    assert run(place, "train", "asgnet", *settings) == 0  # the random network is the same one again


def test_training_on_images_as_they_are_sees_no_flips(place):
    from fss.data.episodes import EpisodeSet, PictureSet
    from fss.data.plan import Draw
    from fss.data.source import open_source
    from fss.recipes import load_config

    config = load_config("folder", "prototype", [f"data.root={place / 'set'}", "data.size=49"])
    source = open_source(config.data, "train")
    for seed in range(8):
        episode = EpisodeSet(source, Canvas(49), "none").load(Draw(1, 3, (4,), seed))
        image = PictureSet(source, Canvas(49))[3].image  # floats, and the episode's are bytes of them
        assert (episode.query_image[0].float() - image).abs().max() < 1


def test_a_head_that_needs_the_neck_says_so(place, capsys):
    assert run(place, "test", "cwt", "network=weights", "head.transformer=false") == 2
    error = capsys.readouterr().err
    assert "it needs neck, and this network has stage1" in error and "network=base" in error


def test_prototype_needs_no_training_and_no_base_network(place):
    assert run(place, "train", "prototype") == 0
    got = result(place, "prototype_*")
    assert got["shots"] == {"train": None, "test": 1} and got["head"]["level"] == "stage3"


def test_a_given_base_takes_the_place_of_the_own(place, capsys):
    assert run(place, "pretrain", "cwt") == 0
    (base,) = (place / "results/folder/fold0").glob("base_*/best.pt")
    given = base.rename(place / "given.pt")
    base.parent.rename(place / "gone")
    assert run(place, "train", "cwt", f"network={given}", "head.steps=5") == 0
    got = result(place, "cwt*_on_given_*")
    assert got["checkpoint"]["base"]["backbone"]["type"] == "resnet18"
    assert not list((place / "results/folder/fold0").glob("base_*"))
    assert run(place, "pretrain", "cwt", f"network={given}") == 2
    assert "no base network to train" in capsys.readouterr().err
    assert run(place, "test", "prototype", f"network={given}") == 0
    assert result(place, "prototype*_on_given_*")["checkpoint"]["base_miou"] is not None
    assert run(place, "train", "cwt", "network=nowhere.pt") == 2
    assert "network=nowhere.pt: no such file" in capsys.readouterr().err


def test_a_given_base_in_the_words_of_0_1(place):
    """Both were asked for where a head's recipe stood on weights: neither order may lose the file."""
    from fss.recipes import load_config

    words = ["backbone.base=given.pt", "backbone.stage1=true"]
    for order in (words, words[::-1]):
        assert load_config("folder", "prototype", order).network == "given.pt"
    assert load_config("folder", "prototype", words[1:]).network == "base"
    assert load_config("folder", "cwt", ["network=given.pt", "backbone.stage1=false"]).network == "weights"


def test_explanations_lie_beside_the_pictures(place):
    """Without --visualize too: an explanation without its episode would explain nothing."""
    assert run(place, "test", "prototype", "tag=explained", "--explain") == 0
    (folder,) = (place / "results/folder/fold0").glob("prototype_*_explained/test_*/visualize")
    pictures = sorted(folder.glob("run*.jpg"))
    assert len(pictures) == 12
    for picture in pictures:
        assert read_image(picture.with_name(f"explain_{picture.name}")).shape[1] > 400  # two panels


def test_a_head_without_explanations_says_so(place, capsys, monkeypatch):
    monkeypatch.delattr("fss.heads.prototype.Prototype.explain")
    assert run(place, "test", "prototype", "tag=explained", "--explain") == 2
    assert "head 'prototype' has no explain(); leave out --explain" in capsys.readouterr().err


def test_a_model_refuses_masks_and_shapes_that_it_would_misread(place):
    from fss.backbones.resnet import ResNet
    from fss.model import build_model

    model = build_model("prototype", {"level": "stage1"}, ResNet(18)).eval()
    query, support = torch.rand(1, 3, 33, 33) * 255, torch.rand(1, 1, 3, 33, 33) * 255
    with torch.no_grad():
        assert model(query, support, torch.ones(1, 1, 33, 33, dtype=torch.bool)).isfinite().all()
    for masks in (torch.full((1, 1, 33, 33), 7), torch.full((1, 1, 33, 33), torch.nan)):
        with pytest.raises(ValueError, match=r"support masks hold .*allowed: 0, 1, 255"):
            model(query, support, masks)
    with pytest.raises(ValueError, match=r"do not fit; wanted \(B,3,H,W\)"):
        model(query, support, torch.ones(1, 2, 33, 33))


def test_another_protocol_in_the_same_folder_loses_no_result(place):
    for folds in (4, 2, 4):
        assert run(place, "test", "prototype", "tag=kept", f"data.folds={folds}") == 0
    homes = list((place / "results/folder/fold0").glob("prototype_*_kept/test_*/result.json"))
    assert {json.loads(p.read_text())["protocol"]["folds"] for p in homes} == {2, 4} and len(homes) == 2


def test_a_data_name_that_leaves_the_output_folder_is_refused(place, capsys):
    assert run(place, "test", "prototype", "data.name=../../elsewhere") == 2
    assert "data.name: String should match pattern" in capsys.readouterr().err


def test_two_processes_train_asgnet(place):
    """Under torchrun with gloo: norms in the head, supports without gradients, one frozen network."""
    settings = [*QUICK, *SMALL, "head.context=aspp", "tag=two"]
    where = [f"data.root={place / 'set'}", f"output={place / 'results'}"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, "-m", "fss", "train", "--data", "folder", "--head", "asgnet", *where, *settings]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    got = result(place, "asgnet*_two")
    assert got["checkpoint"]["processes"] == 2 and got["scores"]["episodes_run"] == 12
    assert got["head"]["context"] == "aspp"
