"""What every neck must keep, at both strides of the backbone: a new neck is tested by being in `NECKS`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones.base import STAGES
from fss.backbones.fold import fold
from fss.backbones.resnet import ResNet
from fss.errors import UserError
from fss.model import BaseSegmenter
from fss.necks import NECKS, make_neck
from fss.necks.align import OffsetBranch
from fss.necks.sfnet import Summit
from fss.ops import resize
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error

INPUTS = {"stage1": 8, "stage2": 12, "stage3": 16, "stage4": 24}
ALIGNED = ("alignseg", "sfnet", "sfnet_gated")
VARIANTS = [
    ("ppm", {}),
    *((name, {"align": align}) for name in ALIGNED for align in (True, False)),
    ("fpn", {}),
    ("sfnet", {"auxiliary": True}),
    ("alignseg", {"auxiliary": False}),
    ("sfnet_gated", {"gate": "pooled"}),
]
IDS = [f"{name}-{','.join(map(str, options.values()))}" for name, options in VARIANTS]


def features(stride=8, batch=2):
    torch.manual_seed(1)
    cells = {8: (25, 13, 13, 13), 32: (25, 13, 7, 4)}[stride]
    return {s: torch.randn(batch, INPUTS[s], n, n + 4) for s, n in zip(STAGES, cells, strict=True)}


def build(name, options, channels=16):
    torch.manual_seed(0)
    return make_neck(name, INPUTS, {"channels": channels, **options})


@pytest.mark.parametrize("stride", [8, 32])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_maps_have_the_size_that_was_asked_for_and_follow_their_features(name, options, stride):
    neck = unsettled(build(name, options))
    x = features(stride)
    with torch.no_grad():
        full, heads = neck.decode(x).map, neck(x)
    if name != "ppm":
        assert full.shape == (2, 16, 25, 29) and heads.shape == (2, 16, 13, 15)
        fine = make_neck(name, INPUTS, {"channels": 16, "stride": 4, **options})
        fine.load_state_dict(neck.state_dict())
        with torch.no_grad():
            assert torch.equal(fine.eval()(x), full)
    for level in neck.levels:
        with torch.no_grad():
            assert not torch.allclose(neck({**x, level: x[level] + 1}), heads, atol=1e-4), level


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_every_parameter_learns_in_base_training(name, options):
    backbone = ResNet(18, "plain")
    model = BaseSegmenter(backbone, make_neck(name, backbone.channels, {"channels": 16, **options}), 3)
    every = model.train().logits(255 * torch.rand(2, 3, 33, 33))
    assert set(every) == {"base", *model.sides} and all(x.shape[:2] == (2, 3) for x in every.values())
    target = torch.randint(0, 3, (2, 33, 33))
    sum(F.cross_entropy(resize(x, (33, 33)), target) for x in every.values()).backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == set()
    assert set(model.eval().logits(255 * torch.rand(1, 3, 33, 33))) == {"base"}


@pytest.mark.parametrize("channels", [16, 256])  # folding replaces wide convolutions by faster ones
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_folded_equals_written_and_bfloat16_stays_near(name, options, channels):
    neck, x = unsettled(build(name, options, channels)), features()
    for branch in neck.modules():
        if isinstance(branch, OffsetBranch):
            nn.init.normal_(branch.last.weight, std=0.03)  # offsets that move something
    with torch.no_grad():
        plain, copy = neck.decode(x), fold(neck, torch.float32).decode(x)
        half = fold(neck, torch.bfloat16).decode({k: v.bfloat16() for k, v in x.items()})
    assert relative_error(copy.map, plain.map) < 1e-5
    assert half.map.dtype == torch.bfloat16 and relative_error(half.map.float(), plain.map) < 0.05
    aligned = bool({"align": True, **options}["align"]) and name not in ("ppm", "fpn")
    assert bool(plain.offsets) == aligned
    for title, offset in plain.offsets.items():
        assert offset.shape == (2, 2, *offset.shape[2:]) and offset.abs().max() > 1e-3
        assert half.offsets[title].dtype == torch.float32
        assert (half.offsets[title] - offset).abs().max() < 0.02 * offset.abs().max() + 0.02


def test_pools_pass_the_summits_convolution_at_their_own_size():
    summit, x = unsettled(Summit(24, 8, 0.1)), torch.randn(2, 24, 13, 9)
    with torch.no_grad():
        whole = summit.merge(torch.cat([*(resize(pool(x), (13, 9)) for pool in summit.pools), x], 1))
        assert relative_error(summit(x), whole) < 1e-5


def test_heads_get_the_mean_around_every_second_cell():
    neck = make_neck("fpn", INPUTS, {"channels": 16}).eval()
    full, heads = neck.decode(features()).map, neck(features())
    assert torch.allclose(heads[:, :, 2, 3], full[:, :, 3:6, 5:8].mean((2, 3)), atol=1e-6)
    assert torch.allclose(heads[:, :, 0, 0], full[:, :, :2, :2].mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(("finest", "shrink"), [(4, 2), (8, 1), (14, 1)])
def test_a_map_is_halved_where_the_finest_stage_is_finer_than_asked(finest, shrink):
    strides = dict.fromkeys(INPUTS, finest)
    assert make_neck("fpn", INPUTS, {"channels": 16}, strides).shrink == shrink
    assert make_neck("fpn", INPUTS, {"channels": 16, "stride": 4}, strides).shrink == 1


def test_the_map_before_the_last_relu():
    neck, x = unsettled(build("ppm", {})), features()
    with torch.no_grad():
        for made in (neck, fold(neck, torch.float32)):
            total = made.before_relu(x)
            assert (total < 0).any() and torch.equal(total.relu(), made.decode(x).map)


def test_every_neck_is_tested_here():
    assert {name for name, _ in VARIANTS} == set(NECKS)


def test_unfit_options_name_the_neck_and_what_it_takes():
    with pytest.raises(UserError, match="neck 'ppm' takes no 'align'; allowed: channels, bins, dropout"):
        make_neck("ppm", INPUTS, {"align": False})
    with pytest.raises(UserError, match="neck 'fpn': stride=16: allowed: 4 or 8"):
        make_neck("fpn", INPUTS, {"stride": 16})
    with pytest.raises(
        UserError, match=r"unknown neck 'pmp', did you mean ppm.; allowed: ppm, alignseg, sfnet"
    ):
        make_neck("pmp", INPUTS, {})


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("gate", ["conv", "pooled"])
def test_an_open_gate_lets_the_coarse_map_through_and_a_closed_one_the_fine(align, gate):
    """The gate is the coarse map's share: the other map then has no part in the answer."""
    neck, x = unsettled(build("sfnet_gated", {"align": align, "gate": gate})), features()
    if neck.flow is not None:
        nn.init.zeros_(neck.flow.weight)  # moves nothing, so that no map has a say in how the other moves
    nn.init.zeros_(neck.gate.weight)
    neck.gate.bias = nn.Parameter(torch.zeros(1))
    for bias, unheard in ((50.0, "stage1"), (-50.0, "stage4")):
        nn.init.constant_(neck.gate.bias, bias)
        with torch.no_grad():
            same, heard = (
                neck.decode({**x, stage: x[stage] + 1}).map
                for stage in (unheard, "stage4" if unheard == "stage1" else "stage1")
            )
            assert torch.allclose(neck.decode(x).map, same, atol=1e-5)
            assert not torch.allclose(neck.decode(x).map, heard, atol=1e-3)
