"""INSID3 equals its plain rendering, from images on."""

import pytest
import torch

from fss.bench.cases import METHODS, episode
from tests.bench.test_bench import setting as setting  # a fixture
from tests.bench.test_bench import settled


@pytest.mark.parametrize("shots", [1, 3])
def test_masks_equal_the_plain_ones_from_images_on(setting, shots):
    model = settled(setting, "insid3")
    model.head.components, model.head.tau = 40, 0.8  # a map of 13 x 13 cells varies in few directions
    e = episode(setting, "insid3", 1, shots)
    with torch.no_grad():
        out = model.output(e, [0]).logits
        wanted, sides = METHODS["insid3"].plain(model, e, False)
        (found,) = model.head._segmented(model.encoded(e, [0]))
    assert torch.equal(out, wanted) and not sides
    assert found.foreground.any() and not found.foreground.all() and found.clusters.max() > 0
