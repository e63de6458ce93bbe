"""HDMNet as the project computes it, and as one would write it down."""

import pytest
import torch

from fss.bench.cases import METHODS, episode
from fss.ops import resize
from tests.bench.test_bench import SIZE, setting, settled  # noqa: F401
from tests.conftest import relative_error


def both(setting, shots, training):  # noqa: F811
    model = settled(setting, "hdmnet")
    model.head.ensemble.gram_merge.weight.data[0, 1] = 0.5
    model.head.ensemble.cls_merge.weight.data[0] = 0.7
    e = episode(setting, "hdmnet", 2, shots)
    e.support_masks[1, 0, :, : SIZE // 2] = 0  # another object than the first episode's
    out = model.output(e, range(2), training)
    logits, others = METHODS["hdmnet"].plain(model, e, training)
    return model, resize(out.logits, (SIZE, SIZE)), logits, others


@pytest.mark.parametrize("shots", [1, 3])
@torch.no_grad()
def test_logits_equal_the_plain_ones(setting, shots):  # noqa: F811
    _, ours, plain, _ = both(setting, shots, training=False)
    assert relative_error(ours, plain) < 1e-4


def test_gradients_equal_the_plain_ones(setting):  # noqa: F811
    model, *logits, others = both(setting, 1, training=True)
    assert len(others) == 1
    learning = [p for p in model.parameters() if p.requires_grad]
    ours, plain = (
        torch.autograd.grad(x.float().square().mean(), learning, allow_unused=True) for x in logits
    )
    for a, b in zip(ours, plain, strict=True):
        if b is not None and b.norm() > 1e-6:
            assert relative_error(a, b) < 1e-3
