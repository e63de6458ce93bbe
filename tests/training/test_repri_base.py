"""RePRI's base training as published: labels, loss, views, and the folder that its network has to itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss.cli import main
from fss.config import PretrainConfig
from fss.data.canvas import fit, fit_mask
from fss.data.files import read_image
from fss.data.labelled import LabelledSet
from fss.data.source import open_source
from fss.errors import UserError
from fss.recipes import load_config
from fss.runs.folders import base_folder
from fss.training.base import smoothed_loss
from tests.make import TINY, make_folder, save_mask

PUBLISHED = ["repri_base"]


def test_labels_are_the_authors(fixture_numbers, tmp_path):
    """Held-out classes are left out, and 255 of the file is background."""
    data = fixture_numbers("repri_base")
    make_folder(tmp_path, classes=20, train=len(data["masks"]), val=1)
    settings = [f"data.root={tmp_path}", "data.train_list=ImageSets/Segmentation/train.txt"]
    for i, mask in enumerate(data["masks"]):
        Image.new("RGB", mask.shape[::-1]).save(tmp_path / "JPEGImages" / f"2007_{i:06d}.jpg")
        save_mask(tmp_path / "SegmentationClass" / f"2007_{i:06d}.png", mask)
    config = load_config("pascal", "repri", [*settings, "data.train_sha256=null"], PUBLISHED)
    source = open_source(config.data, "train")
    assert source.base == data["class_list"].tolist()
    labels = LabelledSet(source, config.data.size, config.pretrain, 0)
    for i, wanted in enumerate(data["base_labels"]):
        assert np.array_equal(labels.table[source.mask(i)], wanted)
    usual = open_source(load_config("pascal", "repri", settings).data, "train")
    assert (usual.mask(0)[data["masks"][0] == 255] == 255).all()


def test_the_loss_is_the_authors(fixture_numbers):
    data = fixture_numbers("repri_base")
    target, classes = torch.tensor(data["target"]).long(), int(data["classes"])
    g = torch.Generator().manual_seed(int(data["logits_seed"]))
    logits = 2 * torch.randn(len(target), classes, *target.shape[1:], generator=g)
    known = target.masked_fill(target == 255, 0)[:, None]
    logits.scatter_add_(1, known, 3.0 * (target != 255).float()[:, None])
    assert torch.allclose(logits[0, :4, :4, :4], torch.tensor(data["logits_corner"]), atol=1e-5)
    logits.requires_grad_()
    published = load_config("pascal", "repri", [], PUBLISHED).pretrain
    loss = smoothed_loss(logits, target, published)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(data["smoothed_loss"]), 1e-5)
    assert float(logits.grad.norm()) == pytest.approx(float(data["gradient_norm"]), 1e-5)
    plain = smoothed_loss(logits, target, PretrainConfig(label_smoothing=0))
    assert float(plain.detach()) == pytest.approx(float(data["plain_loss"]), 1e-5)
    assert float(smoothed_loss(logits, target, PretrainConfig()).detach()) < float(loss.detach())


def test_whole_images_are_those_of_tests_but_for_flips(tmp_path):
    root = make_folder(tmp_path)
    config = load_config("folder", "repri", [f"data.root={root}", "pretrain.view=whole", "data.size=49"])
    source = open_source(config.data, "train")
    data = LabelledSet(source, 49, config.pretrain, 0)
    image, mask = read_image(source.samples[0].image), data.table[source.mask(0)]
    flipped = {
        (down, across): (fit(np.flip(image, axes), 49), fit_mask(np.flip(mask, axes), 49))
        for down in (False, True)
        for across in (False, True)
        for axes in [tuple(i for i, one in enumerate((down, across)) if one)]
    }
    seen = set()
    for epoch in range(20):
        item = data.load((epoch, 0))
        seen |= {
            key
            for key, (i, m) in flipped.items()
            if np.array_equal(item.labels, m) and np.array_equal(item.images.permute(1, 2, 0), i)
        }
    assert seen == set(flipped)


def test_a_crop_of_a_whole_image_is_refused():
    with pytest.raises(UserError, match=r"view=whole shows images at data\.size"):
        load_config("shapes", "repri", [], PUBLISHED)


def test_its_network_has_a_folder_of_its_own_and_the_head_shares_that_of_others():
    cwt, repri, published = (
        base_folder(load_config("pascal", head, [], recipes))
        for head, recipes in (("cwt", []), ("repri", []), ("repri", PUBLISHED))
    )
    assert cwt == repri != published
    assert published.name == "base_resnet50_classifier_bias=True_novel_ignore_boundary_background"
    coco = load_config("coco", "repri", [], PUBLISHED)
    assert (coco.pretrain.epochs, coco.data.size) == (20, 417)


def test_what_was_trained_before_these_settings_is_still_taken(tmp_path, capsys):
    """A checkpoint that knows none of them was trained at their defaults."""
    root, output = make_folder(tmp_path / "set"), tmp_path / "out"
    said = ["pretrain", "--data", "folder", f"data.root={root}", f"output={output}", *TINY]
    assert main(said) == 0
    for path in output.rglob("base*/*.pt"):
        content = torch.load(path, weights_only=True)
        del content["settings"]["view"], content["settings"]["smoothing"]
        del content["about"]["boundary_in_train"], content["about"]["neck"]["classifier_bias"]
        torch.save(content, path)
    assert main(said) == 0
    capsys.readouterr()
    assert main([*said, "pretrain.view=whole"]) == 2
    assert "trained with other settings: view=crop (now whole)" in capsys.readouterr().err
