"""BAM's published files, made from seeds: the base network, and the whole model."""

import pytest
import torch
import torch.nn.functional as F

import fss
from fss.cli import main
from fss.data.classes import fold_classes
from fss.episode import Episode
from fss.heads import KIND
from fss.ops import resize
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity, require
from fss.runs.models import empty_base
from tests.conftest import images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

SAID = ["--data", "pascal", "--fold", "1"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Write a fixture's published-format checkpoint to a file."""
    place = tmp_path_factory.mktemp("bam")

    def write(name):
        path, numbers = place / f"{name}.pth", numbers_of(name)
        if not path.exists():
            torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"])), path)
        return str(path)

    return write


def inputs(numbers):
    """Query, supports and masks, images as the network takes them."""
    masks = torch.from_numpy(numbers["support_masks"])
    b, k, s = masks.shape[:3]
    query = images(numbers["input_seeds"][0], b, 3, s, s)
    return query, images(numbers["input_seeds"][1], b, k, 3, s, s), masks


def close(found, wanted):
    return (found - torch.from_numpy(wanted)).abs().max() <= 3  # pixels, whose two logits may be equal


@torch.no_grad()
@pytest.mark.parametrize("shots", [1, 5])
def test_a_converted_file_gives_the_published_logits(published, tmp_path, shots):
    name, out = f"bam50_{shots}shot", tmp_path / "bam.pt"
    numbers, said = numbers_of(name), [*SAID, "--shots", str(shots)]
    assert main(["convert", "--kind", "bam", published(name), str(out), *said]) == 0
    model, (query, supports, masks) = fss.load_model(out), inputs(numbers)
    with pytest.warns(FutureWarning, match="negative values"):
        logits = model(query, supports, masks)
    assert relative_error(logits[:, :, ::4, ::4], numbers["final_every_4th_pixel"]) < 1e-4
    assert close(logits.argmax(1).sum((1, 2)), numbers["foreground_pixels"])
    if shots == 5:  # the other's size takes its time
        both_learners(model, numbers, query, supports, masks)
        the_meta_learner_alone(published(name), tmp_path / "meta.pt", said, numbers)


def both_learners(model, numbers, query, supports, masks):
    episode = Episode(fss.to_rgb(query), None, fss.to_rgb(supports), masks, torch.zeros(len(query)))
    e = model.encoded(episode, [0] * len(query))
    psi, head = model.head._psi(e), model.head
    weights, size = head.shots(psi), masks.shape[-2:]
    assert relative_error(weights, numbers["shot_weights"]) < 1e-4
    assert relative_error((weights * psi).sum(1), numbers["adjustment"]) < 1e-4
    assert relative_error(head._prior(e, weights), numbers["prior"]) < 1e-4
    base, step = resize(e.query["base"], size), int(numbers["base_every"])
    assert relative_error(base[:, :, ::step, ::step], numbers["base_logits_every_nth_pixel"]) < 1e-4
    counts = F.one_hot(base.argmax(1), base.shape[1]).sum((1, 2))
    assert close(counts, numbers["base_pixels_per_class"])


def the_meta_learner_alone(source, out, said, numbers):
    assert main(["convert", "--kind", "bam", source, str(out), *said, "head.ensemble=false"]) == 0
    model, (query, supports, masks) = fss.load_model(out), inputs(numbers)
    assert model.classifier is None
    with pytest.warns(FutureWarning, match="negative values"):
        logits = model(query, supports, masks)
    assert relative_error(logits[:, :, ::4, ::4], numbers["meta_logits_every_4th_pixel"]) < 1e-4
    assert close(logits.argmax(1).sum((1, 2)), numbers["meta_foreground_pixels"])


@torch.no_grad()
def test_the_converted_base_network_gives_the_published_logits(published, tmp_path):
    numbers, out = numbers_of("bam_base50"), tmp_path / "base.pt"
    assert main(["convert", "--kind", "bam-base", published("bam_base50"), str(out), *SAID]) == 0
    content = checkpoint.read(out)
    model = empty_base(content, out).eval()
    checkpoint.fill(model, content, out)
    labels, s = torch.from_numpy(numbers["labels"]).long(), int(numbers["size"])
    logits = resize(model(fss.to_rgb(images(numbers["input_seed"], 1, 3, s, s))), (s, s))
    assert relative_error(logits[:, :, ::4, ::4], numbers["base_logits_every_4th_pixel"]) < 1e-4
    assert close(F.one_hot(logits.argmax(1), 16).sum((1, 2)), numbers["pixels_per_class"])
    loss = F.cross_entropy(logits, labels, ignore_index=255)
    assert loss.item() == pytest.approx(float(numbers["cross_entropy"]), rel=1e-4)
    assert content["about"]["neck"]["classifier_bias"] is True


def test_the_command_that_is_printed_asks_for_what_was_converted(published, tmp_path, capsys):
    out = tmp_path / "bam.pt"
    arguments = ["--kind", "bam", published("bam50_5shot"), str(out), *SAID, "--shots", "5"]
    assert main(["convert", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"--shots 5 --head bam --checkpoint {out} --config bam_base" in said
    config = load_config("pascal", "bam", ["data.fold=1"], ["bam_base"])
    about = checkpoint.read(out)["about"]
    require(about, Identity.of_few_shot(config, fold_classes(config.data).trained).account(), str(out))
    assert about["head"] == {"type": "bam", **KIND.options("bam", {}), "level": ["stage3", "stage2"]}
    assert about["shots"] == 5 and about["novel_in_train"] == "drop_image"


@pytest.mark.parametrize(("kind", "name", "more", "message"), [
    ("bam", "bam50_5shot", ["--shots", "1"], "was trained with 5 shot(s), not 1; say --shots 5"),
    ("bam", "bam50_1shot", ["--shots", "5"], "was trained with 1 shot(s), not 5; say --shots 1"),
    ("pfenet", "bam50_1shot", [], "is of --kind bam, not pfenet"),
    ("cwt-base", "bam_base50", [], "is of --kind bam-base, not cwt-base"),
    ("bam", "pfenet50_1shot", [], "no classifier.bias, which BAM's network has"),
])  # fmt: skip
def test_what_does_not_fit_is_told(kind, name, more, message, published, tmp_path, capsys):
    out = tmp_path / "out.pt"
    assert main(["convert", "--kind", kind, published(name), str(out), *SAID, *more]) == 2
    assert message in capsys.readouterr().err and not out.exists()
