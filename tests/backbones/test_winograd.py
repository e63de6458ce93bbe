"""Convolutions with fewer products equal plain ones."""

import pytest
import torch
from torch import nn

from fss.backbones.winograd import Winograd, suits
from tests.conftest import relative_error


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize(("h", "w"), [(6, 8), (7, 5), (1, 3), (2, 13)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_convolution(dilation, h, w, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 5, 3, padding=dilation, dilation=dilation, bias=bias).requires_grad_(False)
    fast = Winograd(conv)
    fast.least = 0
    x = torch.randn(2, 12, h, w).to(memory_format=torch.channels_last)
    assert relative_error(fast(x), conv(x)) < 1e-5
    half = Winograd(conv.to(torch.bfloat16))
    half.least = 0
    assert relative_error(half(x.bfloat16()).float(), fast(x)) < 0.02


def test_small_maps_take_the_plain_way():
    conv = nn.Conv2d(256, 64, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 256, 9, 9)
    assert torch.equal(Winograd(conv)(x), conv(x))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"padding": 1}, True),
        ({"padding": 2, "dilation": 2}, False),  # float32: nothing to gain
        ({"padding": 2, "dilation": 2, "dtype": torch.bfloat16}, True),
        ({"padding": 0}, False),
        ({"padding": 1, "stride": 2}, False),
        ({"padding": 1, "groups": 2}, False),
        ({"padding": 1, "padding_mode": "reflect"}, False),
        ({"padding": (1, 2), "dilation": (1, 2), "dtype": torch.bfloat16}, False),
    ],
)
def test_what_suits(options, wanted):
    assert suits(nn.Conv2d(256, 64, 3, **options)) == wanted


def test_other_modules_do_not_suit():
    assert not suits(nn.Conv2d(256, 4, 1)) and not suits(nn.Conv2d(64, 4, 3, padding=1))
    assert not suits(nn.Conv2d(256, 2, 3, padding=1)) and not suits(nn.ReLU())
