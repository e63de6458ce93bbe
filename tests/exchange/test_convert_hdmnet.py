"""HDMNet's published files, made from seeds, turned into checkpoints that give the authors' numbers."""

import pytest
import torch
import torch.nn.functional as F

import fss
from fss.cli import main
from fss.data.classes import fold_classes
from fss.heads import KIND
from fss.heads.ensemble import adjustments
from fss.ops import resize
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity, require
from tests.conftest import images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

SAID = ["--data", "pascal", "--fold", "2"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A fixture's published-format checkpoint, and what became of it."""
    place = tmp_path_factory.mktemp("hdmnet")

    def convert(shots):
        numbers, out = numbers_of(f"hdmnet50_{shots}shot"), place / f"{shots}.pt"
        if not out.exists():
            source = place / f"{shots}.pth"
            torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"])), source)
            arguments = ["--kind", "hdmnet", str(source), str(out), *SAID, "--shots", str(shots)]
            assert main(["convert", *arguments]) == 0
        return numbers, out

    return convert


def close(found, wanted):
    return (found - torch.from_numpy(wanted)).abs().max() <= 3  # pixels, whose two logits may be equal


@torch.no_grad()
@pytest.mark.parametrize("shots", [1, 5])
def test_a_converted_file_gives_the_published_logits(converted, shots):
    numbers, out = converted(shots)
    model, masks = fss.load_model(out), torch.from_numpy(numbers["support_masks"])
    b, s = int(numbers["batch"]), int(numbers["size"])
    query = images(numbers["input_seeds"][0], b, 3, s, s)
    supports = images(numbers["input_seeds"][1], b, shots, 3, s, s)
    seen = []
    model.head.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with pytest.warns(FutureWarning, match="negative values"):
        logits = model(query, supports, masks)
    assert relative_error(logits[:, :, ::4, ::4], numbers["final_every_4th_pixel"]) < 1e-4
    assert close(logits.argmax(1).sum((1, 2)), numbers["foreground_pixels"])
    parts(model.head, seen[0], numbers, (s, s))


def parts(head, e, numbers, size):
    psi, similarity = adjustments(e.query["gram"], e.support["gram"]), head._similarity(e)
    assert relative_error(head.shots(psi), numbers["shot_weights"]) < 1e-4
    assert relative_error((head.shots(psi) * psi).sum(1), numbers["adjustment"]) < 1e-4
    assert relative_error(similarity, numbers["similarity"]) < 1e-4
    meta, correlations = head._meta(e, similarity)
    for name, x in zip(("coarse", "middle", "fine"), reversed(correlations), strict=True):
        assert relative_error(x, numbers[f"correlation_{name}"]) < 1e-4
    meta = resize(meta, size)
    assert relative_error(meta[:, :, ::4, ::4], numbers["meta_logits_every_4th_pixel"]) < 1e-4
    assert close(meta.argmax(1).sum((1, 2)), numbers["meta_foreground_pixels"])
    base, step = resize(e.query["base"], size), int(numbers["base_every"])
    assert relative_error(base[:, :, ::step, ::step], numbers["base_logits_every_nth_pixel"]) < 1e-4
    counts = F.one_hot(base.argmax(1), base.shape[1]).sum((1, 2))
    assert close(counts, numbers["base_pixels_per_class"])


def test_the_command_that_is_printed_asks_for_what_was_converted(converted, tmp_path, capsys):
    source, out = converted(5)[1].with_suffix(".pth"), tmp_path / "hdmnet.pt"
    arguments = ["--kind", "hdmnet", str(source), str(out), *SAID, "--shots", "5", "head.psi=published"]
    assert main(["convert", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"--shots 5 --head hdmnet --checkpoint {out} head.psi=published --config bam_base" in said
    config = load_config("pascal", "hdmnet", ["data.fold=2", "head.psi=published"], ["bam_base"])
    about = checkpoint.read(out)["about"]
    require(about, Identity.of_few_shot(config, fold_classes(config.data).trained).account(), str(out))
    usual = KIND.options("hdmnet", {"psi": "published"})
    lists = {"level": ["stage3", "stage2"], "deep": ["neck:sum", "stage4"]}
    assert about["head"] == {"type": "hdmnet", **usual, **lists}
    assert (about["shots"], about["resize"], about["novel_in_train"]) == (5, "stretch", "drop_image")


def test_a_file_of_one_shot_has_no_weights_of_shots(converted):
    about = checkpoint.read(converted(1)[1])["about"]
    assert (about["head"]["psi"], about["shots"]) == ("mean", 1)


@pytest.mark.parametrize(("kind", "shots", "more", "message"), [
    ("hdmnet", 5, ["--shots", "1"], "was trained with 5 shot(s), not 1; say --shots 5"),
    ("bam", 5, ["--shots", "5"], "holds base_learnear.*: it is of --kind hdmnet, not bam"),
    ("pfenet", 5, [], "is of --kind hdmnet, not pfenet"),
])  # fmt: skip
def test_what_does_not_fit_is_told(kind, shots, more, message, converted, tmp_path, capsys):
    source, out = converted(shots)[1].with_suffix(".pth"), tmp_path / "out.pt"
    assert main(["convert", "--kind", kind, str(source), str(out), *SAID, *more]) == 2
    assert message in capsys.readouterr().err and not out.exists()
