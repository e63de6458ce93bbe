"""HSNet's published files, made from seeds, turned into checkpoints that give the authors' numbers."""

import json
import warnings

import pytest
import torch

import fss
from fss.cli import main
from fss.runs import checkpoint
from tests.conftest import bits, images, numbers_of, relative_error
from tests.fixtures.seeded_checkpoint import seeded_checkpoint


def published(numbers, path):
    """A file as the authors write it: a bare dictionary."""
    torch.save(seeded_checkpoint(numbers["state_keys"], int(numbers["state_seed"]))["state_dict"], path)
    return path


def converted(numbers, folder, *more):
    source, out = published(numbers, folder / "best_model.pt"), folder / "hsnet.pt"
    said = ["--data", "pascal", "--fold", "1", "--shots", "1", *more]
    assert main(["convert", "--kind", "hsnet", str(source), str(out), *said]) == 0
    return out


@pytest.mark.parametrize("shots", [1, 5])
def test_converted_hsnet_gives_the_published_numbers(shots, tmp_path):
    numbers = numbers_of(f"hsnet50_{shots}shot")
    model = fss.load_model(converted(numbers, tmp_path))
    b, s = int(numbers["batch"]), int(numbers["size"])
    query, support = (
        images(numbers["input_seeds"][0], b, 3, s, s),
        images(numbers["input_seeds"][1], b, shots, 3, s, s),
    )
    masks = bits(numbers["support_masks"], s)
    with torch.no_grad(), pytest.warns(FutureWarning, match="taken as normalised"):
        maps = model.extract(fss.to_rgb(query[:1]))
        logits = model(query, support, masks)
        alone = (
            [model(query, support[:, [i]], masks[:, [i]]) for i in range(shots)] if shots > 1 else [logits]
        )
    logits_of_shots = torch.stack(alone, 1)[:, 0 if shots == 1 else slice(None)]  # (B,2,S,S) of one shot
    assert relative_error(logits_of_shots[..., ::4, ::4], numbers["logits_every4"]) < 1e-4
    wrong = (logits.argmax(1) != bits(numbers["prediction"], s)).sum((1, 2))
    assert wrong.max() <= 3 * shots  # pixels whose two logits are equal to 1e-5 may fall either way
    blocks = [level for stage in ("stage2", "stage3", "stage4") for level in sorted(maps) if stage in level]
    for i, level in enumerate(blocks):
        x = maps[level][0]
        assert list(x.shape) == numbers["block_shapes"][i].tolist() and level.endswith(":sum")
        assert float(x.square().mean().sqrt()) == pytest.approx(float(numbers["block_rms"][i]), rel=1e-4)
        assert float(x.min()) == pytest.approx(float(numbers["block_least"][i]), rel=1e-3)


def test_gradients_are_the_published_ones(tmp_path):
    numbers = numbers_of("hsnet50_1shot")
    model = fss.load_model(converted(numbers, tmp_path)).train()
    b, s = int(numbers["batch"]), int(numbers["size"])
    query, support = (
        images(seed, *shape)
        for seed, shape in zip(numbers["input_seeds"], [(b, 3, s, s), (b, 1, 3, s, s)], strict=True)
    )
    with warnings.catch_warnings(action="ignore"):
        logits = model(query, support, bits(numbers["support_masks"], s))
    loss = torch.nn.functional.cross_entropy(logits, bits(numbers["query_mask"], s))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(numbers["loss"]), rel=1e-5)
    parameters = dict(model.head.named_parameters())
    names = json.loads(str(numbers["gradient_names"]))
    norms = [float(parameters[name.removeprefix("hpn_learner.")].grad.norm()) for name in names]
    assert len(names) == len(parameters) and relative_error(norms, numbers["gradient_norms"]) < 1e-4


def test_a_converted_file_says_what_it_is(tmp_path, capsys):
    out = converted(numbers_of("hsnet50_1shot"), tmp_path)
    about = checkpoint.read(out)["about"]
    assert about["backbone"] == {"type": "resnet50", "stem": "plain", "stride": 32}
    assert (about["head"]["type"], about["size"], about["fold"], about["neck"]) == ("hsnet", 400, 1, None)
    assert (
        "fss test --data pascal --fold 1 --layers resnet50 --shots 1 --head hsnet" in capsys.readouterr().out
    )


def test_resnet_101_is_converted_too(tmp_path):
    """Its stage 3 has 23 blocks, and so has the first convolution that sees them."""
    from fss.backbones import make_backbone
    from fss.model import build_model

    model = build_model("hsnet", {}, make_backbone("resnet101", None, {"stem": "plain", "stride": 32}))
    theirs = {"layer0.0": "conv1", "layer0.1": "bn1"}
    state = {}
    for name, value in model.state_dict().items():
        where, _, rest = name.partition(".")
        for ours, name_of_theirs in theirs.items():
            rest = rest.replace(f"{ours}.", f"{name_of_theirs}.")
        state[f"module.{'hpn_learner' if where == 'head' else where}.{rest}"] = value
    state |= {
        "module.backbone.fc.weight": torch.zeros(1000, 2048),
        "module.backbone.fc.bias": torch.zeros(1000),
    }
    torch.save(state, tmp_path / "best_model.pt")
    out = tmp_path / "hsnet.pt"
    arguments = ["convert", "--kind", "hsnet", str(tmp_path / "best_model.pt"), str(out), "--data", "coco"]
    assert main([*arguments, "--fold", "0", "--shots", "1"]) == 0
    again = fss.load_model(out)
    assert len(again.head.pyramid[1]) == 23
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.hpn_learner.decoder2.2.bias"), "1 missing: head.decoder2.2.bias"),
        (lambda s: s.update({"module.extra.weight": torch.zeros(1)}), "1 unexpected: extra.weight"),
        (lambda s: [s.pop(k) for k in list(s) if "backbone" in k], "holds no ResNet-50 or 101"),
    ],
)
def test_names_that_do_not_fit_are_listed(change, message, tmp_path, capsys):
    source = published(numbers_of("hsnet50_1shot"), tmp_path / "in.pt")
    state = torch.load(source, weights_only=True)
    change(state)
    torch.save(state, source)
    out = tmp_path / "out.pt"
    said = ["--data", "pascal", "--fold", "0", "--shots", "1"]
    assert main(["convert", "--kind", "hsnet", str(source), str(out), *said]) == 2
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("kind", ["pfenet", "asgnet", "cwt-base", "backbone"])
def test_a_file_of_another_kind_is_named(kind, tmp_path, capsys):
    source = published(numbers_of("hsnet50_1shot"), tmp_path / "in.pt")
    out = tmp_path / "out.pt"
    assert main(["convert", "--kind", kind, str(source), str(out), "--data", "pascal", "--fold", "0"]) == 2
    said = capsys.readouterr().err
    assert f"holds hpn_learner.*: it is of --kind hsnet, not {kind}" in said and not out.exists()
