"""Offsets and resampling: the authors' numbers, zero offsets, and float32 inside a bfloat16 network."""

import pytest
import torch

from fss.backbones.fold import fold
from fss.backbones.weights import load_strict
from fss.necks.align import AlignedAggregation, AlignedContext, FlowAlignment, in_cells, resample
from fss.ops import resize
from tests.backbones.test_fold import unsettled
from tests.conftest import relative_error

# First parts of the published names -> ours.
AGGREGATION = {
    "d1.0": "coarse.hidden.0", "d1.1.0": "coarse.hidden.1", "d1.2": "coarse.last",
    "d2.0": "fine.hidden.0", "d2.1.0": "fine.hidden.1", "d2.2": "fine.last",
}  # fmt: skip
FLOW = {"down_h": "coarse", "down_l": "fine", "flow_make": "flow"}


def filled(module, numbers, table):
    named = {k.removeprefix("state."): torch.tensor(v) for k, v in numbers.items() if k.startswith("state.")}
    state = {f"{table[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in named.items()}
    load_strict(module, state, "fixture")
    return module.eval()


@pytest.mark.parametrize("folded", [False, True])
def test_aligned_aggregation_gives_the_authors_numbers(fixture_numbers, folded):
    numbers = fixture_numbers("alignseg_cab")
    block = filled(AlignedAggregation(16), numbers, AGGREGATION)
    block = fold(block, torch.float32) if folded else block
    with torch.no_grad():
        out, (coarse, fine) = block(torch.tensor(numbers["low"]), torch.tensor(numbers["high"]))
    assert relative_error(coarse, numbers["delta_high"]) < 1e-4
    assert relative_error(fine, numbers["delta_low"]) < 1e-4
    assert relative_error(out, numbers["out"]) < 1e-4


def test_flow_alignment_gives_the_authors_numbers(fixture_numbers):
    numbers = fixture_numbers("sfnet_fam")
    block = filled(FlowAlignment(16), numbers, FLOW)
    with torch.no_grad():
        moved, offset = block(torch.tensor(numbers["low"]), torch.tensor(numbers["high"]))
    assert relative_error(offset, in_cells(torch.tensor(numbers["flow"]))) < 1e-4
    assert relative_error(moved, numbers["out"]) < 1e-4


@pytest.mark.parametrize("size", [(11, 15), (22, 29), (1, 4)])
def test_zero_offsets_are_a_plain_resize(size):
    x = torch.randn(2, 3, 11, 15)
    assert torch.allclose(resample(x, torch.zeros(2, 2, *size)), resize(x, size), atol=1e-5)


def test_offsets_are_cells_x_then_y_and_outside_is_zero():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.zeros(1, 2, 3, 4)
    offset[:, 0], offset[:, 1] = 2, 1
    wanted = torch.tensor([[6.0, 7, 0, 0], [10, 11, 0, 0], [0, 0, 0, 0]])
    assert torch.allclose(resample(x, offset)[0, 0], wanted, atol=1e-5)


@pytest.mark.parametrize("block", [AlignedAggregation, AlignedContext])
def test_alignment_off_is_the_untrained_block(block):
    """AlignSeg's offset branches start at zero: off and on are one network then, in training too."""
    torch.manual_seed(0)
    on = block(8) if block is AlignedAggregation else block(8, 8)
    off = block(8, align=False) if block is AlignedAggregation else block(8, 8, align=False)
    off.load_state_dict({k: v for k, v in on.state_dict().items() if k in off.state_dict()})
    maps = [torch.randn(2, 8, 13, 9), torch.randn(2, 8, 7, 5)][: 2 if block is AlignedAggregation else 1]
    with torch.no_grad():
        assert relative_error(on(*maps)[0], off(*maps)[0]) < 1e-5
    assert off(*maps)[1] == []


def test_a_bfloat16_network_places_its_samples_as_finely_as_float32():
    """At 119 cells a grid in bfloat16 is off by half a cell; ours stays within a fiftieth."""
    block = unsettled(AlignedAggregation(8))
    torch.nn.init.normal_(block.coarse.last.weight, std=0.05)
    fine, coarse = torch.randn(1, 8, 119, 119), torch.randn(1, 8, 60, 60)
    with torch.no_grad():
        _, exact = block(fine, coarse)
        out, offsets = fold(block, torch.bfloat16)(fine.bfloat16(), coarse.bfloat16())
    assert out.dtype == torch.bfloat16 and offsets[0].dtype == torch.float32
    assert 0.1 < exact[0].abs().max() < 5 and (offsets[0] - exact[0]).abs().max() < 0.02
    ramp = torch.linspace(0, 1, 119).expand(1, 1, 119, 119)
    shifted = resample(ramp.bfloat16(), torch.full((1, 2, 119, 119), 0.25))[..., 1:-1, 1:-1].float()
    assert (shifted - ramp[..., 1:-1, 1:-1] - 0.25 / 118).abs().max() < 2**-8  # the ramp's own rounding
