"""RePRI's published files, made from seeds: the network, and the network with the head on it."""

import pytest
import torch

import fss
from fss.cli import main
from fss.config import HeadConfig
from fss.data.classes import fold_classes
from fss.episode import Episode
from fss.metrics import counts
from fss.ops import resize
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity, require
from fss.runs.models import empty_base, load_base_with
from tests.conftest import images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

SAID = ["--data", "pascal", "--fold", "0"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Write a fixture's published-format checkpoint to a file, and convert it."""
    place = tmp_path_factory.mktemp("repri")

    def convert(name, kind):
        source, out = place / f"{name}.pth", place / f"{name}_{kind}.pt"
        numbers = numbers_of(name)
        if not source.exists():
            torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"])), source)
        if not out.exists():
            shots = str(numbers["support_masks"].shape[1])
            more = ["head.valid=label"] if kind == "repri" else []
            assert (
                main(["convert", "--kind", kind, str(source), str(out), *SAID, "--shots", shots, *more]) == 0
            )
        return out

    return convert


def inputs(numbers):
    """Query, supports and masks in RGB of 0..255, and the query's label."""
    masks, label = torch.from_numpy(numbers["support_masks"]), torch.from_numpy(numbers["query_mask"])
    b, k, s = masks.shape[:3]
    query = 0.5 * images(numbers["input_seeds"][0], b, 3, s, s) + (label == 1)[:, None]
    support = 0.5 * images(numbers["input_seeds"][1], b, k, 3, s, s) + (masks == 1)[:, :, None]
    return fss.to_rgb(query), fss.to_rgb(support), masks, label


@torch.no_grad()
@pytest.mark.parametrize("name", ["repri50_1shot", "repri50_5shot"])
def test_the_converted_model_gives_the_published_numbers(name, published):
    """An episode, because a model's call takes RGB below zero, which noise has, for normalised."""
    numbers, model = numbers_of(name), fss.load_model(published(name, "repri"))
    query, support, masks, label = inputs(numbers)
    features = model.extract(query)["neck"][:, :: int(numbers["channel_step"])]
    assert relative_error(features, numbers["query_features_every_nth_channel"]) < 1e-4
    out = model.output(Episode(query, label, support, masks, torch.zeros(len(query))), [0] * len(query))
    lead = out.logits[:, 1] + torch.tensor(numbers["bias_after_49"])[:, None, None]
    assert relative_error(lead, numbers["logits"]) < 1e-4
    logits = resize(out.logits, label.shape[-2:])
    likely = logits.softmax(1)[:, 1, ::4, ::4]
    assert relative_error(likely, numbers["foreground_probability_every_4th_pixel"]) < 1e-3
    wrong = logits.argmax(1).sum((1, 2)) - torch.from_numpy(numbers["foreground_pixels"])
    assert wrong.abs().max() <= 2
    inter, union = counts(logits.argmax(1), label)
    assert (inter - torch.tensor(numbers["intersection"])).abs().max() <= 2
    assert (union - torch.tensor(numbers["union"])).abs().max() <= 2


@torch.no_grad()
def test_the_converted_base_network_gives_the_published_logits(published):
    numbers, path = numbers_of("repri50_1shot"), published("repri50_1shot", "repri-base")
    content = checkpoint.read(path)
    model = empty_base(content, path).eval()
    checkpoint.fill(model, content, path)
    logits, step = resize(model(inputs(numbers)[0]), (105, 105)), int(numbers["pixel_step"])
    assert relative_error(logits[:, :, ::step, ::step], numbers["base_logits_every_nth_pixel"]) < 1e-4
    head = load_base_with(path, HeadConfig(type="repri")).head
    assert head.levels == ("neck",) and not head.learns


def test_what_is_converted_says_how_it_was_trained(published):
    about = checkpoint.read(published("repri50_1shot", "repri"))["about"]
    assert (about["size"], about["novel_in_train"], about["boundary_in_train"]) == (
        417,
        "ignore",
        "background",
    )
    assert about["neck"]["classifier_bias"] is True and about["head"]["type"] == "repri"
    base = checkpoint.read(published("repri50_1shot", "repri-base"))["about"]
    assert base["stage"] == "base" and base["neck"]["classifier_bias"] is True


@pytest.mark.parametrize("kind", ["repri", "repri-base"])
def test_a_network_of_cwt_is_another_kind(kind, published, tmp_path, capsys):
    content = torch.load(
        published("repri50_1shot", "repri").with_name("repri50_1shot.pth"), weights_only=True
    )
    del content["state_dict"]["module.classifier.bias"]
    torch.save(content, tmp_path / "in.pth")
    assert main(["convert", "--kind", kind, str(tmp_path / "in.pth"), str(tmp_path / "out.pt"), *SAID]) == 2
    assert "no classifier.bias, which RePRI's network has" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


def test_the_command_that_is_printed_asks_for_what_was_converted(published, tmp_path, capsys):
    """Its configuration's identity is the checkpoint's."""
    source, out = published("repri50_1shot", "repri").with_name("repri50_1shot.pth"), tmp_path / "repri.pt"
    assert main(["convert", "--kind", "repri", str(source), str(out), *SAID, "--shots", "1"]) == 0
    said = capsys.readouterr().out
    assert "--head repri" in said and "--config repri_base" in said
    config = load_config("pascal", "repri", ["data.fold=0"], ["repri_base"])
    names = fold_classes(config.data).trained
    require(checkpoint.read(out)["about"], Identity.of_few_shot(config, names).account(), str(out))
