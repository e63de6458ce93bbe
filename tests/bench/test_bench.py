"""The fast paths equal the plain ones in float32, and `fss bench` prints what it measured."""

import json

import numpy as np
import pytest
import torch

from fss.bench.cases import METHODS, Setting, build, disc, episode, loading
from fss.bench.run import CASES
from fss.cli import main
from fss.heads.seeds import seeds_of
from fss.ops import binary_mask, resize
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error
from tests.testing.test_devices import DEVICES

SIZE, CELLS = 97, (13, 13)


@pytest.fixture(params=DEVICES)
def setting(request, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # float32 is meant here
    return Setting(SIZE, "resnet50", torch.device(request.param), False)


def settled(setting, head):
    model = build(setting, head).eval()
    for part in model.frozen:
        unsettled(part)
    if model.neck:  # features of the size that training gives: on larger ones 200 steps are chaos
        for tensor in (model.neck.bottleneck[1].weight, model.neck.bottleneck[1].bias):
            tensor.data /= 50
    return model


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("head", ["cwt", "asgnet", "pfenet", "hsnet", "bam", "dcama"])
def test_logits_equal_the_plain_ones(setting, head, shots):
    model = settled(setting, head)
    if head == "asgnet":
        model.head.cells = 4  # several superpixels on a small map
    e = episode(setting, head, METHODS[head].batch // 2 or 1, shots)
    with torch.no_grad():
        out = model.output(e, range(len(e.query_image)))
        wanted = METHODS[head].plain(model, e, False)[0]
        if head == "hsnet" and shots > 1:  # masks
            assert (out.logits.argmax(1) != wanted.argmax(1)).sum() <= 3
            return
        counts = [seeds_of(m == 1, CELLS, 5, 4).counts for m in e.support_masks]
    assert head != "asgnet" or (torch.stack(counts) > 1).all()
    assert relative_error(resize(out.logits, (SIZE, SIZE)), wanted) < 1e-4


@pytest.mark.parametrize("head", ["asgnet", "pfenet", "bam"])
def test_scales_and_gradients_equal_the_plain_ones(setting, head):
    """As in training, dropout aside: the gradient of each parameter."""
    model = settled(setting, head)
    model.head.cells, model.head.iterations = 4, (5, 5)
    e = episode(setting, head, 2, 1)

    def gradients(logits):
        loss = sum(x.float().square().mean() for x in logits)
        return torch.autograd.grad(
            loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True
        )

    out = model.output(e, range(len(e.query_image)))
    logits, _ = METHODS[head].plain(model, e, True)
    for ours, theirs in zip(gradients([resize(out.logits, (SIZE, SIZE))]), gradients([logits]), strict=True):
        if theirs is not None and theirs.norm() > 1e-6:
            assert relative_error(ours, theirs) < 1e-3


@pytest.mark.parametrize("size", [SIZE, 161])
def test_gradients_of_the_squeeze_equal_the_plain_ones(setting, size):
    model = settled(setting._replace(size=size), "hsnet").train()
    e = episode(setting._replace(size=size), "hsnet", 2, 1)
    out = resize(model.output(e, [0, 1]).logits, (size, size))
    logits, _ = METHODS["hsnet"].plain(model, e, True)
    parameters = list(model.head.parameters())
    ours, theirs = (
        torch.cat([x.flatten() for x in torch.autograd.grad(y.square().mean(), parameters)])
        for y in (out, logits)
    )
    assert relative_error(ours, theirs) < 1e-3  # of all together: biases before a norm have none of their own


def test_gradients_of_dcamas_decoder_equal_the_plain_ones(setting):
    """Float32 does not determine those of attention; tests/heads/test_dcama.py has them in float64."""
    model = settled(setting, "dcama")
    e = episode(setting, "dcama", 1, 2)
    out, (logits, _) = model.output(e, [0]).logits, METHODS["dcama"].plain(model, e, False)
    parameters = dict(model.head.named_parameters())
    names = [k for k in parameters if "linears" not in k]
    ours, theirs = (
        torch.autograd.grad(y.square().mean(), [parameters[k] for k in names]) for y in (out, logits)
    )
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert relative_error(a, b) < 1e-3, name


def test_loading_equals_the_plain_way_but_for_rounding(setting):
    with loading(setting) as pair:
        ours = pair.ours()
        assert len(ours) == 8 and ours[0].query_image.dtype == torch.uint8
        assert len(pair.plain()) == 8


def test_masks_hold_foreground_background_and_ignored():
    assert set(np.unique(disc(97, 2))) == {0, 1, 255}
    assert torch.equal(binary_mask(disc(97, 1), torch.tensor([1])), disc(97, 1))


def test_the_command_prints_a_table_or_a_line(capsys):
    small = ["bench", "--size", "65", "--runs", "1", "--gpus", "cpu", "--precision", "fp32"]
    only = "cwt_test_1shot,cwt_cached_1shot,cwt_image,load_episode"
    assert main([*small, "--only", only]) == 0
    out = capsys.readouterr().out
    for title in ("CWT published test of a fold", "loading one training episode"):
        assert title in out
    assert main([*small, "--only", "asgnet_image", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line).keys() == {"asgnet_image"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "cwt_trane"], "unknown case 'cwt_trane'; allowed: cwt_train_1shot"),
        (["--runs", "0"], "--runs 0"),
        (["--size", "32"], "--size 32: allowed are 33 and more"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["bench", "--gpus", "cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_names_are_those_of_published_timings():
    for name in ("cwt_train_1shot", "cwt_test_1shot", "asgnet_train_1shot", "asgnet_image"):
        assert name in CASES and name.replace("1", "5") in CASES
