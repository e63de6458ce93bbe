"""A step of base training: what is added up, and how."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fss.backbones.resnet import ResNet
from fss.config import PretrainConfig
from fss.data.labelled import Labelled
from fss.model import BaseSegmenter
from fss.necks import make_neck
from fss.training.base import _step

CPU = torch.device("cpu")


def test_auxiliary_losses_are_added_at_their_weight_each_a_plain_cross_entropy():
    """Neither averaged nor weighted by class: the first class is rare, so that it would show."""
    torch.manual_seed(0)
    backbone = ResNet(18)
    neck = make_neck("sfnet", backbone.channels, {"channels": 8, "auxiliary": True}, backbone.strides)
    model, seen = BaseSegmenter(backbone, neck, 4), {}
    for name, module in {"base": model.classifier, **model.sides}.items():
        module.register_forward_hook(lambda module, inputs, out, name=name: seen.update({name: out.detach()}))
    labels = torch.randint(2, 4, (2, 49, 49))
    labels[:, :5, :5], labels[:, -4:] = 1, 255
    config = SimpleNamespace(pretrain=PretrainConfig(label_smoothing=0.1))
    step = _step(model, None, config, CPU, False)
    losses = step(Labelled(torch.randint(0, 256, (2, 3, 49, 49)), labels, torch.arange(2)))
    assert losses.each.keys() == seen.keys() and len(seen) == 4
    for name, logits in seen.items():
        logits = F.interpolate(logits, (49, 49), mode="bilinear", align_corners=True)
        wanted = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=0.1)
        weight = 1.0 if name == "base" else 0.4
        assert losses.each[name].item() == pytest.approx(weight * wanted.item(), rel=1e-5)
    assert losses.weight == (labels != 255).sum()
