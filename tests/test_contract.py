"""What every head must keep, run over all of them: a new head is tested by being in `HEADS`."""

import pytest
import torch

from fss.backbones.frozen import checksum
from fss.backbones.resnet import ResNet
from fss.heads import HEADS, build_head
from fss.model import FewShotModel
from fss.necks.ppm import PyramidPooling
from fss.ops import segmentation_loss

HEIGHT, WIDTH = 49, 65  # not square, so that a swapped axis shows


def build(name, bf16=False):
    torch.manual_seed(0)
    backbone = ResNet(18)
    neck = PyramidPooling(backbone.channels["stage4"], 16)
    head = build_head(name, {}, {**backbone.channels, "neck": 16})
    return FewShotModel(backbone, neck, head, bf16).eval()


def episodes(model, batch=2, shots=1, fill=None):
    torch.manual_seed(1)
    query, support = torch.randn(batch, 3, HEIGHT, WIDTH), torch.randn(batch, shots, 3, HEIGHT, WIDTH)
    masks = (torch.rand(batch, shots, HEIGHT, WIDTH) > 0.6).long()
    masks[..., :4] = 255
    if fill is not None:
        masks[:] = fill
    extras = [model.head.prepare(m, seed=i) for i, m in enumerate(masks)]
    return query, support, masks, {k: torch.stack([e[k] for e in extras]) for k in extras[0]}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("fill", [None, 0, 1, 255])
def test_logits_are_finite_whatever_the_supports_hold(name, shots, fill):
    model = build(name)
    with torch.no_grad():
        out = model(*episodes(model, 2, shots, fill))
    assert out.logits.shape[:2] == (2, 2) and out.logits.isfinite().all()
    assert all(note.shape == (2,) for note in out.notes.values())


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_equals_its_episodes_one_by_one(name):
    model = build(name)
    query, support, masks, extras = episodes(model, 3, 2)
    with torch.no_grad():
        together = model(query, support, masks, extras).logits
        for i in range(3):
            own = slice(i, i + 1)
            alone = model(query[own], support[own], masks[own], {k: v[own] for k, v in extras.items()}).logits
            assert torch.allclose(alone, together[own], atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("bf16", [False, True])
def test_only_the_head_learns_and_nothing_frozen_moves(name, bf16):
    model = build(name, bf16).train()
    frozen = checksum(torch.nn.ModuleList([model.backbone, model.neck]))
    assert not any(m.training for part in (model.backbone, model.neck) for m in part.modules())
    target = torch.randint(0, 2, (2, HEIGHT, WIDTH))
    out = model(*episodes(model), target)
    loss = segmentation_loss(out.logits, target, model.head.balanced_loss) + sum(out.losses.values())
    loss.backward()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    optimizer.step()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    assert all(p.grad is None for part in (model.backbone, model.neck) for p in part.parameters())
    assert checksum(torch.nn.ModuleList([model.backbone, model.neck])) == frozen


@pytest.mark.parametrize("name", HEADS)
def test_prepare_is_pure(name):
    model = build(name)
    masks = torch.randint(0, 2, (2, HEIGHT, WIDTH))
    before = torch.get_rng_state()
    a, b = model.head.prepare(masks, 7), model.head.prepare(masks, 7)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(torch.get_rng_state(), before)
