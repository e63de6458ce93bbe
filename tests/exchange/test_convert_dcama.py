"""DCAMA's published files, made from seeds, turned into checkpoints that give the authors' numbers."""

import json

import numpy as np
import pytest
import torch

import fss
from fss.cli import main
from fss.heads import Encoded
from fss.heads.aggregation import positions
from fss.runs import checkpoint
from tests.conftest import bits, images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


def published(numbers, path, **more):
    """A file as the authors write it: a bare dictionary, position codes among its names."""
    state = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"]
    torch.save({**state, **{f"module.model.pe.{i}.pe": code for i, code in more.items()}}, path)
    return path


def converted(numbers, folder):
    codes = {str(i): positions(50, width)[None] for i, width in enumerate((512, 1024, 2048))}
    source, out = published(numbers, folder / "best_model.pt", **codes), folder / "dcama.pt"
    said = ["--data", "pascal", "--fold", "1", "--shots", "1"]
    assert main(["convert", "--kind", "dcama", str(source), str(out), *said]) == 0
    return out


@pytest.fixture(scope="module")
def of_one_shot(tmp_path_factory):
    """The published file of the 1-shot numbers, and the checkpoint of it."""
    folder = tmp_path_factory.mktemp("dcama")
    return folder / "best_model.pt", converted(numbers_of("dcama50_1shot"), folder)


def inputs(numbers):
    """Query, supports and masks of a fixture."""
    b, s, shots = (int(numbers[k]) for k in ("batch", "size", "shots"))
    query, support = numbers["input_seeds"]
    masks = bits(numbers["support_masks"], s)
    return images(query, b, 3, s, s), images(support, b, shots, 3, s, s), masks


@pytest.mark.parametrize("shots", [1, 5])
def test_converted_dcama_gives_the_published_numbers(shots, of_one_shot, tmp_path):
    numbers = numbers_of(f"dcama50_{shots}shot")
    out = of_one_shot[1] if shots == 1 else converted(numbers, tmp_path)
    model, s = fss.load_model(out), int(numbers["size"])
    query, support, masks = inputs(numbers)
    with torch.no_grad(), pytest.warns(FutureWarning, match="taken as normalised"):
        maps = model.extract(fss.to_rgb(query[:1]))
        logits = model(query, support, masks)
    assert relative_error(logits[..., ::4, ::4], numbers["logits_every4"]) < 1e-4
    prediction = logits.argmax(1)
    assert (prediction != bits(numbers["prediction"], s)).sum((1, 2)).max() <= 3
    assert np.abs(prediction.sum((1, 2)).numpy() - numbers["foreground_pixels"]).max() <= 3
    first = {"stage1": 0, "stage2": 3, "stage3": 7, "stage4": 13}
    for level, x in maps.items():
        stage, block = level.removesuffix(":sum").split(".")
        number = first[stage] + int(block)
        shape, size, least = (numbers[f"block_{k}"][number] for k in ("shapes", "rms", "least"))
        assert list(x.shape[1:]) == shape.tolist()
        assert float(x.square().mean().sqrt()) == pytest.approx(float(size), rel=1e-4)
        assert float(x.min()) == pytest.approx(float(least), rel=1e-3)
    assert len(maps) == 14


def test_gradients_are_the_published_ones(of_one_shot):
    """In float64, frozen network and all: float32 does not determine them."""
    numbers = numbers_of("dcama50_1shot")
    model = fss.load_model(of_one_shot[1]).double().eval()
    model.as_stored = True
    query, support, masks = (x.double() if x.is_floating_point() else x for x in inputs(numbers))
    model.backbone.pixels = lambda x: x  # the fixture's images are normalised already
    encoded = model.encode(query), model.encode_support(support[:, 0], masks[:, 0])
    episode = Encoded(encoded[0], {k: x[:, None] for k, x in encoded[1].items()}, masks, [0, 1])
    logits = model.head(episode).logits
    loss = torch.nn.functional.cross_entropy(logits, bits(numbers["query_mask"], numbers["size"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(numbers["loss_float64"]), rel=1e-9)
    parameters = dict(model.head.named_parameters())
    names = json.loads(str(numbers["gradient_names"]))
    assert len(names) == len(parameters)
    for name, wanted in zip(names, numbers["gradient_norms_float64"], strict=True):
        if not name.endswith("linears.1.bias"):  # adds the same to all scores of a query
            norm = float(parameters[name.removeprefix("model.")].grad.norm())
            assert norm == pytest.approx(float(wanted), rel=1e-6), name


def test_a_converted_file_says_what_it_is(of_one_shot):
    content = checkpoint.read(of_one_shot[1])
    about = content["about"]
    assert about["backbone"] == {"type": "resnet50", "stem": "plain", "stride": 32}
    assert (about["head"]["type"], about["size"], about["fold"], about["neck"]) == ("dcama", 384, 1, None)
    assert not any("pe" in name.split(".") for name in content["model"])


@pytest.mark.parametrize(
    "code", [positions(50, 512)[None] + 0.01, positions(50, 512).T[None], torch.zeros(50)]
)
def test_other_position_codes_are_refused(code, tmp_path, capsys):
    """They are looked at first, so that names alone will do of all else."""
    layers = [f"layer3.{i}.conv1.weight" for i in range(6)] + ["layer4.0.conv3.weight"]
    state = {f"module.feature_extractor.{name}": torch.zeros(1) for name in layers}
    source, out = tmp_path / "in.pt", tmp_path / "out.pt"
    torch.save({**state, "module.model.pe.0.pe": code}, source)
    said = ["--data", "pascal", "--fold", "0", "--shots", "1"]
    assert main(["convert", "--kind", "dcama", str(source), str(out), *said]) == 2
    assert "model.pe.0.pe is not the position code" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("kind", ["hsnet", "cwt-base"])
def test_a_file_of_another_kind_is_named(kind, of_one_shot, tmp_path, capsys):
    source, out = of_one_shot[0], tmp_path / "out.pt"
    assert main(["convert", "--kind", kind, str(source), str(out), "--data", "pascal", "--fold", "0"]) == 2
    said = capsys.readouterr().err
    assert f"holds model.DCAMA_blocks.*: it is of --kind dcama, not {kind}" in said and not out.exists()
