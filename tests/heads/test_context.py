"""ASGNet's context modules against their plain forms, and their layers by number."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.heads.context import ASPP, Pyramid, size_of
from tests.backbones.test_fold import unsettled


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def inputs(width=8, h=9, w=11):
    torch.manual_seed(0)
    return *torch.randn(2, 2 * width, h, w).chunk(2, 1), torch.randn(2, 1, h, w)


def test_a_pyramid_as_it_is_written():
    """PFENet, section 4.2: every scale takes in the next finer one; all are merged at the map's own size."""
    torch.manual_seed(0)
    module, (query, guide, likeness) = Pyramid(8, (12, 6, 3)).eval(), inputs()
    at, maps, sides, pair = (9, 11), [], [], torch.cat([query, guide], 1)
    for i, size in enumerate((12, 6, 3)):
        x = module.corr_conv[i](torch.cat([F.adaptive_avg_pool2d(pair, size), resized(likeness, size)], 1))
        if maps:
            finer = resized(resized(maps[-1], at), size)
            x = x + module.alpha_conv[i - 1](torch.cat([x, finer], 1))
        maps.append(x + module.beta_conv[i](x))
        sides.append(module.inner_cls[i](maps[-1]))
    x = module.res1(torch.cat([resized(m, at) for m in maps], 1))
    logits, every = module(query, guide, likeness, True, {})
    assert torch.allclose(logits, module.cls(x + module.res2(x)), atol=1e-5)
    assert len(every) == 3 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(every, sides, strict=True))
    without, none = module(query, guide, likeness, False, {})
    assert none == [] and torch.equal(without, logits)


def test_a_guide_of_one_cell_is_the_same_at_every_cell():
    torch.manual_seed(0)
    module, (query, guide, likeness) = Pyramid(8, (12, 6, 3)).eval(), inputs()
    guide = guide.mean((2, 3), keepdim=True)
    wanted, scales = module(query, guide.expand_as(query), likeness, True, {})
    logits, every = module(query, guide, likeness, True, {})
    assert torch.allclose(logits, wanted, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(every, scales, strict=True))


def test_likeness_may_have_another_size_and_corners_are_followed():
    torch.manual_seed(0)
    module, (query, guide, likeness) = Pyramid(8, (9.0, 5.0)).eval(), inputs(h=9, w=9)
    coarse = likeness[..., ::2, ::2]
    for corners in (True, False):
        fine = F.interpolate(coarse, (9, 9), mode="bilinear", align_corners=corners)
        first = module(query, guide, coarse, True, {}, corners)[1][0]
        assert torch.allclose(first, module(query, guide, fine, True, {}, corners)[1][0], atol=1e-6)
    aligned, middles = (module(query, guide, likeness, False, {}, corners)[0] for corners in (True, False))
    assert not torch.allclose(aligned, middles, atol=1e-4)


@pytest.mark.parametrize(("side", "at", "size"), [
    (60, (9, 11), (60, 60)), (1, (9, 11), (1, 1)), (8.0, (9, 11), (8, 8)),
    (1.0, (9, 11), (9, 11)), (0.5, (9, 11), (4, 5)), (0.125, (81, 81), (10, 10)), (0.01, (9, 11), (1, 1)),
])  # fmt: skip
def test_floats_up_to_one_are_shares_of_each_side(side, at, size):
    assert size_of(side, at) == size
    _, (scale,) = Pyramid(8, (side,)).eval()(*inputs(h=at[0], w=at[1]), True, {})
    assert tuple(scale.shape[-2:]) == size


def test_aspp_as_it_is_written():
    module, three = unsettled(ASPP(8, 6)), inputs()
    fine = torch.randn(2, 6, 17, 21)
    relu = F.relu
    x = relu(F.conv2d(torch.cat(three, 1), module.corr_conv[0].weight, padding=1))
    for skip in (module.skip1, module.skip2, module.skip3):
        x = relu(x) + F.conv2d(relu(F.conv2d(relu(x), skip[1].weight, padding=1)), skip[3].weight, padding=1)
    aspp = module.ASPP
    conv = lambda layer, y, d: relu(F.conv2d(y, layer[0].weight, layer[0].bias, padding=d, dilation=d or 1))  # noqa: E731
    parts = [conv(aspp.layer6_0, x.mean((2, 3), keepdim=True), 0).expand_as(x), conv(aspp.layer6_1, x, 0)]
    parts += [
        conv(layer, x, d) for layer, d in ((aspp.layer6_2, 6), (aspp.layer6_3, 12), (aspp.layer6_4, 18))
    ]
    x = conv(aspp.layer7, torch.cat(parts, 1), 0)
    thin = relu(module.decoder.bn1(F.conv2d(fine, module.decoder.conv1.weight)))
    y = torch.cat([resized(x, (17, 21)), thin], 1)
    y = relu(module.decoder.last_conv[1](F.conv2d(y, module.decoder.last_conv[0].weight, padding=1)))
    with torch.no_grad():
        logits, sides = module(*three, True, {"stage1": fine})
        assert torch.allclose(logits, module.cls(y), atol=1e-4)
        assert len(sides) == 1 and torch.allclose(sides[0], module.cls_aux(x), atol=1e-4)
        assert module(*three, False, {"stage1": fine})[1] == []


@pytest.mark.parametrize(("module", "parameters", "dropouts"), [
    (Pyramid(8, (4, 2)), 2 * 17 * 8 + 16 * 8 + 4 * 576 + 2 * (576 + 18) + 16 * 8 + 2 * 576 + 576 + 18,
     {0.1: 3}),
    (ASPP(8, 6), 17 * 72 + 6 * 576 + (64 + 8) * 2 + 3 * (576 + 8) + 40 * 8 + 8 + 6 * 64 + 128 + 72 * 72 + 16
     + 2 * (576 + 18), {0.5: 8, 0.1: 2}),
])  # fmt: skip
def test_layers_are_as_many_and_as_wide_as_published(module, parameters, dropouts):
    """Biases stand in dilated convolutions and in the last of a classifier alone."""
    assert sum(p.numel() for p in module.parameters()) == parameters
    rates = [m.p for m in module.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    assert {rate: rates.count(rate) for rate in rates} == dropouts
