"""Counts of every head are those of its episodes, however these are grouped, shared out or kept."""

import pytest
from torch import nn

from fss.backbones.resnet import ResNet
from fss.data.source import open_source
from fss.heads import HEADS
from fss.model import build_model
from fss.necks import make_neck
from fss.randomness import seeded
from fss.recipes import load_config
from fss.runs import distributed
from fss.testing.evaluate import evaluate, feature_store
from fss.testing.plans import planner_for
from tests.make import make_folder
from tests.test_contract import SMALL_MAPS
from tests.testing.test_features import CPU

SIZE, EPISODES, SHOTS = 49, 7, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration, a source of it, and a plan."""
    root = make_folder(tmp_path_factory.mktemp("counts") / "set")
    settings = [f"data.root={root}", f"data.size={SIZE}", "data.min_pixels=1", "data.workers=0"]
    config = load_config("folder", "prototype", settings)
    source = open_source(config.data, "val")
    return config, source, planner_for(config, source, source.novel, SHOTS, 3).run(0, EPISODES)


@seeded(0)
def model_of(name):
    backbone = ResNet(18)
    neck = make_neck("ppm", backbone.channels, {"channels": 16}, backbone.strides)
    classifier = nn.Conv2d(neck.channels, 4, 1)
    return build_model(name, SMALL_MAPS.get(name, {}), backbone, neck, classifier=classifier).eval()


def counted(place, model, batch=1, gib=None, frozen_only=False):
    config, source, plan = place
    config = config.model_copy(update={"cache_gib": gib})
    store = feature_store(model, source, config, CPU, frozen_only)
    out = evaluate(model, store, [plan], len(source.classes), batch)
    return out.episodes


@pytest.mark.parametrize("name", HEADS)
def test_batches_memory_and_processes_change_no_count(place, name, monkeypatch):
    model = model_of(name)
    alone = counted(place, model)
    assert len(alone) == EPISODES and any(c.intersection < c.union for c in alone)
    assert counted(place, model, batch=3) == alone
    assert counted(place, model, batch=2, gib=0.0) == alone
    assert counted(place, model, batch=4, frozen_only=True) == alone
    monkeypatch.setattr(distributed, "world", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "gather", lambda x: [x])
        monkeypatch.setattr(distributed, "sum_over_processes", lambda x: x)
        shares += counted(place, model, batch=2)
    assert sorted(shares) == alone
