"""PFENet's published files, made from seeds, turned into checkpoints that give the authors' numbers."""

import pytest
import torch

import fss
from fss.cli import main
from fss.episode import Episode
from fss.heads.pfenet import support_vector
from fss.ops import resize
from fss.runs import checkpoint
from tests.conftest import images, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint

PASCAL = ["--data", "pascal", "--fold", "2"]


def write(numbers, path):
    torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"])), path)
    return str(path)


@pytest.mark.parametrize("shots", [1, 5])
def test_a_converted_file_gives_the_published_logits(fixture_numbers, tmp_path, shots):
    numbers, out = fixture_numbers(f"pfenet50_{shots}shot"), tmp_path / "pfenet.pt"
    source = write(numbers, tmp_path / "best.pth")
    assert main(["convert", "--kind", "pfenet", source, str(out), *PASCAL, "--shots", str(shots)]) == 0
    model = fss.load_model(out)
    b, s = int(numbers["batch"]), int(numbers["size"])
    query = images(numbers["input_seeds"][0], b, 3, s, s)
    supports = images(numbers["input_seeds"][1], b, shots, 3, s, s)
    masks = torch.from_numpy(numbers["support_masks"])
    episode = Episode(fss.to_rgb(query), None, fss.to_rgb(supports), masks, torch.zeros(b))
    with torch.no_grad(), pytest.warns(FutureWarning, match="negative values"):
        logits = model(query, supports, masks)
        encoded = model.encoded(episode, [0] * b)
    assert relative_error(logits[:, :, ::4, ::4], numbers["logits_every_4th_pixel"]) < 1e-4
    wrong = (logits.argmax(1).sum((1, 2)) - torch.from_numpy(numbers["foreground_pixels"])).abs()
    assert wrong.max() <= 2
    assert relative_error(support_vector(encoded), numbers["support_vector"]) < 1e-4
    prior = resize(model.head.explain(encoded)[0].values[:, None], (60, 60))[:, 0, ::4, ::4]
    assert relative_error(prior, numbers["prior_at_first_scale_every_4th"]) < 1e-4


def test_what_a_file_does_not_tell_is_said(fixture_numbers, tmp_path, capsys):
    """Scales and shots; the command that is printed names what was said."""
    source, out = write(fixture_numbers("pfenet50_1shot"), tmp_path / "best.pth"), tmp_path / "pfenet.pt"
    sizes = "head.sizes=[1,0.5,0.25,0.125]"
    assert main(["convert", "--kind", "pfenet", source, str(out), *PASCAL, "--shots", "5", sizes]) == 0
    said = capsys.readouterr().out
    assert f"--shots 5 --head pfenet --checkpoint {out} {sizes}" in said
    about = checkpoint.read(out)["about"]
    assert about["head"] | {"type": "pfenet", "width": 256, "sizes": [1, 0.5, 0.25, 0.125]} == about["head"]
    assert (about["backbone"]["type"], about["shots"], about["fold"]) == ("resnet50", 5, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.init_merge.3.0.weight"), "1 missing: head.context.corr_conv.3.0.weight"),
        (lambda s: s.update({"module.corr_conv.extra": torch.zeros(1)}), "1 unexpected"),
        (lambda s: s.pop("module.down_query.0.weight"), "no down_query.0.weight among its"),
    ],
)
def test_names_that_do_not_fit_are_listed(change, message, fixture_numbers, tmp_path, capsys):
    numbers, source, out = fixture_numbers("pfenet50_1shot"), tmp_path / "best.pth", tmp_path / "pfenet.pt"
    content = seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))
    change(content["state_dict"])
    torch.save(content, source)
    assert main(["convert", "--kind", "pfenet", str(source), str(out), *PASCAL]) == 2
    assert message in capsys.readouterr().err and not out.exists()
