"""Pixel correlation: columns that sum to 1, alike pixels that share, and memory that stays bounded."""

import torch
import torch.nn.functional as F

from fss.l2g.correlation import PixelCorrelation, affinity

CHANNELS = {"stage2": 8, "stage3": 16}


def inputs(h, w):
    torch.manual_seed(1)
    features = {"stage2": torch.randn(2, 8, h, w), "stage3": torch.randn(2, 16, h, w)}
    return torch.randn(2, 5, h, w), torch.randn(2, 3, 8 * h, 8 * w), features


def test_columns_of_the_affinity_sum_to_one_and_opposites_share_nothing():
    features = torch.tensor([[[[1.0, 2.0, -1.0, 0.0]], [[0.0, 0.0, 0.0, 3.0]]]])  # (1,2,1,4)
    found = affinity(features)[0]
    assert torch.allclose(found.sum(0), torch.ones(4), atol=1e-4) and (found >= 0).all()
    # Pixels 0 and 1 point the same way, 2 the opposite way, 3 across.
    half = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert torch.allclose(found, half, atol=1e-4)


def test_spreading_the_map_equals_spreading_the_features():
    """The published order: features times affinity, then the classifier."""
    torch.manual_seed(0)
    classify = torch.nn.Conv2d(12, 5, 1, bias=False)
    module, deep = PixelCorrelation(CHANNELS), torch.randn(2, 12, 6, 7)
    _, images, features = inputs(6, 7)
    spread = module(classify(deep), images, features)
    small = F.interpolate(images, size=(6, 7), mode="bilinear", align_corners=True)
    parts = [small, module.low(features["stage2"]), module.high(features["stage3"])]
    columns = affinity(module.mix(torch.cat(parts, 1)))
    assert torch.allclose(spread, classify((deep.flatten(2) @ columns).view_as(deep)), atol=1e-4)


def test_affinity_is_bounded_on_large_maps(monkeypatch):
    from fss.l2g import correlation

    sizes = []
    monkeypatch.setattr(correlation, "affinity", lambda f: sizes.append(f.shape[-2:]) or affinity(f))
    module = PixelCorrelation(CHANNELS, cells=6)
    out = module(*inputs(20, 30))
    assert out.shape == (2, 5, 20, 30)
    ((h, w),) = sizes
    assert h * w <= 36 and abs(w / h - 1.5) < 0.5
    sizes.clear()
    module(*inputs(5, 6))
    assert sizes == [(5, 6)]  # small enough as it is


def test_gradients_stop_before_the_backbone():
    response, images, features = inputs(4, 4)
    for x in features.values():
        x.requires_grad_()
    module = PixelCorrelation(CHANNELS)
    module(response, images, features).square().sum().backward()
    assert all(x.grad is None for x in features.values())
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
