"""The loop that counts: at both sizes of labels, in any batches, with the budget of the settings."""

import pytest
import torch

from fss.backbones.resnet import ResNet
from fss.data.canvas import Canvas, square
from fss.data.episodes import PictureSet
from fss.data.plan import Draw
from fss.data.source import open_source
from fss.model import build_model
from fss.recipes import load_config
from fss.testing.evaluate import Answer, add_up, evaluate, feature_store
from fss.testing.features import FeatureStore, FrozenEncoding, WholeEncoding
from tests.make import make_folder
from tests.testing.test_features import CPU, SIZE, Watching


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = make_folder(tmp_path_factory.mktemp("evaluate") / "set")  # photos of 48 x 64
    settings = [f"data.root={root}", f"data.size={SIZE}", "data.min_pixels=1"]
    return open_source(load_config("folder", "prototype", settings).data, "val")


DRAWS = [
    Draw(1, 0, (3,), 0),
    Draw(2, 0, (1,), 1),
    Draw(1, 3, (4,), 2),
    Draw(1, 4, (0,), 3),
    Draw(2, 1, (0,), 4),
]


def count(source, logits, label_size, batch=2, plans=(DRAWS,), **more):
    """Counts of an answer that is the same (1,2,h,w) for every episode."""
    store = FeatureStore(PictureSet(source, Canvas(SIZE), label_size == "original"), Watching(), CPU, None, 0)
    notes = lambda n: {"odd": torch.arange(n) % 2 == 0}  # noqa: E731
    answer = lambda r: Answer(logits.expand(len(r.draws), -1, -1, -1), notes(len(r.draws)), ())  # noqa: E731
    return add_up(answer, store, plans, 4, batch, label_size, **more)


def upper_left():
    """Logits whose foreground is the upper half of the canvas and its left quarter."""
    lead = -torch.ones(1, 1, 4, 4)
    lead[..., :2, :], lead[..., :1] = 1, 1
    return torch.cat([torch.zeros_like(lead), lead], 1)


def test_a_mask_lies_at_the_top_left_of_its_square():
    mask = torch.tensor([[1, 0, 1], [0, 1, 255]])
    assert square(mask).tolist() == [[1, 0, 1], [0, 1, 255], [255, 255, 255]]
    assert square(mask.T).tolist() == [[1, 0, 255], [0, 1, 255], [1, 255, 255]]
    assert torch.equal(square(mask[:, :2]), mask[:, :2])


def test_original_labels_are_scored_on_the_square_canvas_that_the_network_saw(source):
    """Half of the canvas is 32 of 64 rows, not 24 of the photo's 48: a prediction keeps its shape."""
    out = count(source, upper_left(), "original")
    lead = torch.nn.functional.interpolate(
        upper_left()[:, 1:], size=(64, 64), mode="bilinear", align_corners=True
    )[0, 0]
    for draw, counted in zip(DRAWS, out.episodes, strict=True):
        labels = torch.from_numpy(source.mask(draw.query))
        assert labels.shape == (48, 64)
        valid, true, found = labels != 255, labels == draw.class_id, lead[:48] > 0
        assert counted.intersection == int((true & found & valid).sum()) > 0
        assert counted.union == int(((true | found) & valid).sum())
    assert 45 > int((lead[:, -1] > 0).sum()) > 25


def test_parts_are_counted_near_boundaries_and_by_the_size_of_objects(source, monkeypatch):
    pictures = PictureSet(source, Canvas(SIZE))
    masks = [
        torch.where(x == 255, x, (x == d.class_id).long())
        for d in DRAWS
        for x in [pictures.load(d.query).labels]
    ]
    shares = [float((m == 1).sum() / (m != 255).sum()) for m in masks]
    bound = sum(sorted(shares)[1:3]) / 2
    monkeypatch.setattr("fss.testing.evaluate.SMALL", bound)
    out = count(source, upper_left(), "network", plans=(DRAWS, DRAWS))
    sums = {name: score.totals.sum(0)[:, 1].tolist() for name, score in out.parts.items()}
    for name, picked in (
        ("small", lambda s: s < bound),
        ("large", lambda s: s >= bound),
    ):
        own = [c for c, s in zip(out.episodes, shares * 2, strict=True) if picked(s)]
        assert sums[name] == [sum(c.intersection for c in own), sum(c.union for c in own)] != [0, 0]
    lead = torch.nn.functional.interpolate(
        upper_left()[:, 1:], size=(SIZE, SIZE), mode="bilinear", align_corners=True
    )
    found, inter, union = lead[0, 0] > 0, 0, 0
    for mask in masks:
        rows, columns = ((mask != 255).any(axis).nonzero()[:, 0] for axis in (1, 0))
        mask, there = (x[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for x in (mask, found))
        for y, x in (mask != 255).nonzero().tolist():
            around = mask[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            if (around != mask[y, x]).any():
                inter += int(mask[y, x] == 1 and bool(there[y, x]))
                union += int(mask[y, x] == 1 or bool(there[y, x]))
    assert sums["boundary"] == [2 * inter, 2 * union] and 0 < inter < union


@pytest.mark.parametrize("label_size", ["network", "original"])
def test_runs_numbers_and_classes_are_kept_apart_in_any_batch(source, label_size):
    plans = [DRAWS, DRAWS[:3]]
    one, some = (count(source, upper_left(), label_size, n, plans) for n in (1, 4))
    assert one.episodes == some.episodes and [r.totals.tolist() for r in one.runs] == [
        r.totals.tolist() for r in some.runs
    ]
    assert [(c.run, c.number) for c in some.episodes] == [(0, i) for i in range(5)] + [
        (1, i) for i in range(3)
    ]
    for run, (score, plan) in enumerate(zip(some.runs, plans, strict=True)):
        for label in (1, 2):
            own = [c for c in some.episodes if c.run == run and plan[c.number].class_id == label]
            assert score.totals[label, :, 1].tolist() == [
                sum(c.intersection for c in own),
                sum(c.union for c in own),
            ]
    assert one.notes == {"odd": 8} and some.notes == {"odd": 2 + 1 + 2}


def test_what_is_handed_on_of_an_episode_is_its_own(source):
    seen = []
    out = count(source, upper_left(), "original", 2, on_episode=lambda *a: seen.append(a))
    assert [(run, number, draw) for run, number, draw, *_ in seen] == [(0, i, d) for i, d in enumerate(DRAWS)]
    for (*_, drawn, iou, panels), counted in zip(seen, out.episodes, strict=True):
        assert drawn.shape == (SIZE, SIZE) and panels == []  # at network size, whatever is scored
        assert iou == pytest.approx(100 * counted.intersection / counted.union)


def test_the_budget_of_the_settings_is_the_stores_own(source):
    model = build_model("prototype", {"level": "stage3"}, ResNet(18), None)
    for gib, kept in ((0, False), (1, True)):
        config = load_config(
            "folder", "prototype", [f"data.size={SIZE}", "data.workers=0", f"cache_gib={gib}"]
        )
        for frozen_only in (True, False):
            store = feature_store(model, source, config, CPU, frozen_only)
            out = evaluate(model, store, [DRAWS], 4, 2)
            assert bool(store.features) == kept and len(out.episodes) == 5


@pytest.mark.parametrize("label_size", ["network", "common"])
def test_a_store_keeps_what_its_episodes_need(source, label_size):
    model = build_model("prototype", {"level": "stage3"}, ResNet(18), None)
    config = load_config("folder", "prototype", [f"test.label_size={label_size}", f"data.size={SIZE}"])
    whole, frozen = (feature_store(model, source, config, CPU, frozen_only) for frozen_only in (False, True))
    assert type(whole.encoder) is WholeEncoding and type(frozen.encoder) is FrozenEncoding
    assert whole.pictures.originals == (label_size == "common") and not frozen.pictures.originals
    assert whole.pictures.canvas == frozen.pictures.canvas == Canvas(SIZE)
