"""Every head on DINOv2 and DINOv3: what docs/heads.md says of plain transformers."""

import pytest
import torch
from torch import nn

from fss.backbones.timm import Timm
from fss.episode import Episode
from fss.errors import UserError
from fss.heads import HEADS
from fss.model import build_model
from fss.necks import make_neck
from fss.randomness import seeded
from tests.test_contract import SMALL_MAPS, UNCUT

NETWORKS = {"vit_small_patch14_reg4_dinov2": (42, 56), "vit_small_patch16_dinov3_qkvb": (64, 48)}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network with random weights, and a size of images that it takes."""
    with seeded(0):
        return Timm(request.param), NETWORKS[request.param]


def model_of(backbone, name, options):
    with seeded(0):
        neck = make_neck("ppm", backbone.channels, {"channels": 16}, backbone.strides)
        given = {**SMALL_MAPS.get(name, {}), **options}
        return build_model(name, given, backbone, neck, False, nn.Conv2d(16, 4, 1)).eval()


def episode(size):
    g = torch.Generator().manual_seed(1)
    images = 255 * torch.rand(1, 3, 3, *size, generator=g)
    masks = torch.zeros(1, 2, *size, dtype=torch.int64)
    masks[..., 10:35, 8:40] = 1
    return Episode(images[:, 0], None, images[:, 1:], masks, torch.ones(1))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_answers_on_a_plain_transformer(network, name):
    backbone, size = network
    model = model_of(backbone, name, UNCUT.get(name, {}))
    with torch.no_grad():
        logits = model.output(episode(size), [0]).logits
    assert logits.isfinite().all() and logits.shape[:2] == (1, 2)
    assert model.head.corners is False


@pytest.mark.parametrize("name", UNCUT)
def test_what_would_go_on_from_a_stage_says_which_option_it_wants(network, name):
    backbone, size = network
    with pytest.raises(UserError, match=r"cannot go on from stage3.*head\.cut=nothing"), torch.no_grad():
        model_of(backbone, name, {}).output(episode(size), [0])
