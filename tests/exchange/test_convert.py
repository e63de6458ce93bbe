"""Published files, made from seeds, turned into checkpoints that give the authors' numbers."""

import json

import numpy as np
import pytest
import torch

import fss
from fss.cli import main
from fss.episode import Episode
from fss.heads import KIND
from fss.heads.seeds import seeds_of
from fss.ops import resize
from fss.runs import checkpoint
from fss.runs.identity import require
from tests.conftest import images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Write a fixture's published-format checkpoint to a file."""
    place = tmp_path_factory.mktemp("published")

    def write(name):
        path = place / f"{name}.pth"
        if not path.exists():
            numbers = numbers_of(name)
            torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"])), path)
        return path

    return write


@pytest.mark.parametrize("name", ["pyramid_1shot", "pyramid_5shot", "aspp_1shot"])
def test_converted_asgnet_gives_the_published_logits(name, published, tmp_path):
    numbers = numbers_of(f"asgnet50_{name}")
    out, shots = tmp_path / "asgnet.pt", numbers["support_masks"].shape[1]
    said = ["--data", "pascal", "--fold", "2", "--shots", str(shots)]
    assert main(["convert", "--kind", "asgnet", str(published(f"asgnet50_{name}")), str(out), *said]) == 0
    model = fss.load_model(out)
    b, s = int(numbers["batch"]), int(numbers["size"])
    query = images(numbers["input_seeds"][0], b, 3, s, s)
    support = images(numbers["input_seeds"][1], b, shots, 3, s, s)
    masks = torch.from_numpy(numbers["support_masks"])
    size = tuple(model.extract(fss.to_rgb(query))["stage3"].shape[-2:])
    places, counts = seeds_of((masks == 1).flatten(0, 1), size, model.head.prototypes, model.head.cells)
    for i, wanted in enumerate(numbers["seeds"].reshape(b * shots, -1, 2)):
        assert np.array_equal(places[i], wanted), counts
    with torch.no_grad():
        # Noise has RGB below zero, which a model's call would take for normalised images.
        episode = Episode(fss.to_rgb(query), None, fss.to_rgb(support), masks, torch.zeros(b))
        logits = resize(model.output(episode, [0] * b).logits, (s, s))
    assert relative_error(logits[:, :, ::4, ::4], numbers["logits_every_4th_pixel"]) < 1e-4
    wrong = (logits.argmax(1).sum((1, 2)) - torch.from_numpy(numbers["foreground_pixels"])).abs()
    assert wrong.max() <= 2  # a pixel whose two logits are equal to 1e-5 may fall either way


def test_converted_asgnet_says_what_it_is(published, tmp_path):
    out = tmp_path / "asgnet.pt"
    said = ["--data", "pascal", "--fold", "2", "--shots", "5"]
    main(["convert", "--kind", "asgnet", str(published("asgnet50_aspp_1shot")), str(out), *said])
    about = checkpoint.read(out)["about"]
    assert (about["data"], about["fold"], about["shots"], about["backbone"]["type"]) == (
        "pascal",
        2,
        5,
        "resnet50",
    )
    assert about["head"]["context"] == "aspp" and len(about["base_classes"]) == 15
    assert checkpoint.read(out)["facts"]["converted"][0]["file"] == "asgnet50_aspp_1shot.pth"


def test_converted_asgnet_is_what_a_test_asks_for(published, tmp_path):
    """`cells`, a float, has 100 as its default: neither that nor 100.0 may pass for another head."""
    out, source = tmp_path / "asgnet.pt", str(published("asgnet50_pyramid_1shot"))
    said = ["--data", "pascal", "--fold", "0", "--shots", "1"]
    assert main(["convert", "--kind", "asgnet", source, str(out), *said]) == 0
    content = checkpoint.read(out)
    for options in ({}, {"cells": 100}, {"cells": 100.0}):
        wanted = {"head": {"type": "asgnet", **KIND.options("asgnet", options)}}
        require(content["about"], wanted, str(out))
    wanted["head"]["cells"] = 101
    says = r"another kind of checkpoint: head is asgnet with cells=100.0, wanted asgnet with cells=101.0"
    with pytest.raises(fss.UserError, match=says):
        require(content["about"], wanted, str(out))


@pytest.fixture(scope="module")
def base(published, tmp_path_factory):
    """CWT's published base network, converted."""
    out = tmp_path_factory.mktemp("base") / "base.pt"
    source = str(published("cwt_pspnet50_features"))
    arguments = ["convert", "--kind", "cwt-base", source, str(out), "--data", "pascal", "--fold", "0"]
    assert main([*arguments, "data.size=113"]) == 0
    return out


def test_converted_base_gives_the_published_features(base):
    from fss.runs.models import empty_base

    numbers, content = numbers_of("cwt_pspnet50_features"), checkpoint.read(base)
    model = empty_base(content, base)
    checkpoint.fill(model, content, base)
    model.eval()
    with torch.no_grad():
        features = model.neck(
            model.backbone(fss.to_rgb(torch.from_numpy(numbers["image"])), model.neck.levels)
        )
    assert relative_error(features, numbers["features"]) < 1e-4


def cwt_transformer(path, width=512, heads=4):
    """A transformer's file, as the authors write it."""
    shapes = [
        ["w_qkvs.weight", [heads * width, width]], ["fc.weight", [width, heads * width]],
        ["fc.bias", [width]], ["layer_norm.weight", [width]], ["layer_norm.bias", [width]],
    ]  # fmt: skip
    keys = json.dumps([[f"module.{name}", shape, "float32"] for name, shape in shapes])
    torch.save({"epoch": 3, **seeded_checkpoint(keys, 7)}, path)
    return path


def test_converted_cwt_is_the_base_and_the_transformer(published, tmp_path):
    transformer = cwt_transformer(tmp_path / "transformer.pth")
    out = tmp_path / "cwt.pt"
    sources = [str(published("cwt_pspnet50_features")), str(transformer)]
    assert main(["convert", "--kind", "cwt", *sources, str(out), "--data", "pascal", "--fold", "1"]) == 0
    model = fss.load_model(out)
    state = torch.load(transformer, weights_only=True)["state_dict"]
    assert torch.equal(model.head.transformer.fc.weight, state["module.fc.weight"])
    numbers = numbers_of("cwt_pspnet50_features")
    features = model.extract(fss.to_rgb(torch.from_numpy(numbers["image"])))["neck"]
    assert relative_error(features, numbers["features"]) < 1e-4


def test_converted_backbone_is_read_as_weights(published, tmp_path):
    from fss.backbones.weights import read_weights

    state = torch.load(published("asgnet50_pyramid_1shot"), weights_only=True)["state_dict"]
    names = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
    imagenet = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    for name, value in state.items():
        stage, part, *rest = name.removeprefix("module.").split(".")
        if stage == "layer0":
            imagenet[".".join([names[part], *rest])] = value
        elif stage.startswith("layer"):
            imagenet[".".join([stage, part, *rest])] = value
    torch.save(imagenet, tmp_path / "resnet50_v2.pth")
    out = tmp_path / "backbone.pt"
    assert main(["convert", "--kind", "backbone", str(tmp_path / "resnet50_v2.pth"), str(out)]) == 0
    weights = read_weights(out, 50)
    assert torch.equal(weights["layer0.6.weight"], state["module.layer0.6.weight"])
    assert checkpoint.read(out)["about"] == {
        "stage": "backbone",
        "backbone": {"type": "resnet50", "stem": "deep"},
    }


PASCAL = ["--data", "pascal", "--fold", "0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.res1.0.weight"), "1 missing: head.context.res1.0.weight"),
        (lambda s: s.update({"module.extra.weight": torch.zeros(1)}), "1 unexpected: extra.weight"),
        (
            lambda s: s.update({"module.cls.3.weight": torch.zeros(3, 256, 1, 1)}),
            r"1 of another shape: head.context.cls.3.weight \(3, 256, 1, 1\), wanted \(2, 256, 1, 1\)",
        ),
        (
            lambda s: s.update({"module.cls.3.bias": torch.full((2,), torch.nan)}),
            "1 not finite: head.context.cls.3.bias",
        ),
        (
            lambda s: s.update({"module.cls.3.bias": torch.zeros(2, dtype=torch.int8)}),
            r"1 of another type: head.context.cls.3.bias \(torch.int8\)",
        ),
        (lambda s: s.update({"cls.3.bias": torch.zeros(2)}), "1 names twice, with `module.` and without"),
        (lambda s: s.pop("module.down_conv.0.weight"), "no down_conv.0.weight among its"),
        (lambda s: [s.pop(k) for k in list(s) if "layer3.5" in k], r"6 or 23 blocks in layer3 \(it has 5\)"),
    ],
)
def test_names_that_do_not_fit_are_listed(change, message, published, tmp_path, capsys):
    content = torch.load(published("asgnet50_pyramid_1shot"), weights_only=True)
    change(content["state_dict"])
    torch.save(content, tmp_path / "in.pth")
    out = tmp_path / "out.pt"
    assert main(["convert", "--kind", "asgnet", str(tmp_path / "in.pth"), str(out), *PASCAL]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "asgnet", "in.pth", "out.pt"], "say what the files were trained on"),
        (["--kind", "asgnet", "in.pth", *PASCAL], "the authors' file or files, then the checkpoint"),
        (["--kind", "asgnet", "in.pth", "out.pt", *PASCAL], "no file in.pth"),
        (["--kind", "asgnet", "in.pth", "out.pt", "--data", "pascal"], "trained on, such as --fold 0"),
        (["--kind", "psp", "in.pth", "out.pt", *PASCAL], "unknown --kind 'psp'"),
        (["--kind", "pfnet", "in.pth", "out.pt"], "unknown --kind 'pfnet', did you mean pfenet?"),
        (["--kind", "asgnet", "in.pth", "there.pt", *PASCAL], "there.pt exists"),
    ],
)
def test_mistakes_are_told(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt").write_text("kept")
    assert main(["convert", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.pt").read_text() == "kept"


def test_our_own_checkpoints_need_no_conversion(tmp_path, capsys):
    own, out = tmp_path / "own.pt", tmp_path / "out.pt"
    torch.save({"head.scale": torch.ones(1)}, own)
    assert main(["convert", "--kind", "pfenet", str(own), str(out), *PASCAL]) == 2
    assert "own.pt is a checkpoint of this project: use it as it is" in capsys.readouterr().err
    assert not out.exists()


def test_a_base_network_is_no_model(base):
    with pytest.raises(fss.UserError, match="a base network without a head"):
        fss.load_model(base)
