"""HSNet's published episodes from the lengths of its lists, and plans by the same draws."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from fss.cli import main
from fss.data.hsnet_draws import HSNetPlanner, class_rows, pair_rows
from fss.data.plan import Planner, plan_hash
from fss.data.source import open_source
from fss.recipes import load_config
from fss.testing.plans import make_plans
from tests.make import TINY, make_folder

POOLS = {2: np.array([0, 3, 4, 9]), 5: np.array([1, 3, 8])}


def first(rows, count=1000):
    return np.array([[r.class_id, r.query, *r.supports] for r in itertools.islice(rows, count)])


@pytest.mark.parametrize(("fold", "shots"), [(0, 1), (0, 5), (2, 1)])
def test_the_published_pairs(fixture_numbers, fold, shots):
    data = fixture_numbers("hsnet_episodes_pascal")
    lengths = dict(data[f"fold{fold}_class_and_length"].tolist())
    pairs = [tuple(pair) for pair in data[f"fold{fold}_pairs"].tolist()]
    assert np.array_equal(first(pair_rows(pairs, lengths, shots, 0)), data[f"fold{fold}_{shots}shot"])


@pytest.mark.parametrize("shots", [1, 5])
def test_the_published_classes(fixture_numbers, shots):
    data = fixture_numbers("hsnet_episodes_coco")
    lengths = dict(data["fold0_class_and_length"].tolist())
    rows = first(class_rows(lengths, shots, 0))
    assert np.array_equal(rows, data[f"fold0_{shots}shot"])
    if shots == 5:
        assert any(len(set(r[2:])) < 5 for r in rows.tolist())  # they may repeat
    assert all(r[1] not in r[2:] for r in rows.tolist())


def test_a_class_without_another_image_ends_at_once():
    for rows in (pair_rows([(1, 0), (2, 0)], {1: 3, 2: 1}, 1, 0), class_rows({1: 3, 2: 1}, 1, 0)):
        with pytest.raises(ValueError, match="class 2 has 1 image"):
            next(rows)
    assert list(pair_rows([], {}, 1, 0)) == []


@pytest.mark.parametrize("sampling", ["hsnet_pairs", "hsnet_classes"])
def test_plans_hold_positions_of_the_drawn_places(sampling):
    planner = HSNetPlanner(POOLS, 2, 7, sampling)
    plan = planner.run(0, 60)
    lengths = {c: len(p) for c, p in POOLS.items()}
    pairs = [(2, 0), (5, 0), (2, 1), (5, 1), (2, 2), (5, 2), (2, 3)]  # in the order of images, then classes
    rows = pair_rows(pairs, lengths, 2, 7) if sampling == "hsnet_pairs" else class_rows(lengths, 2, 7)
    for draw, row in zip(plan, rows, strict=False):
        pool = POOLS[draw.class_id]
        assert (draw.class_id, draw.query) == (row.class_id, pool[row.query])
        assert draw.supports == tuple(pool[list(row.supports)])
        assert draw.query not in draw.supports
    assert planner.draw(0, 41) == plan[41] and planner.run(0, 20) == plan[:20]
    assert len({d.seed for d in plan}) == 60


@pytest.mark.parametrize("sampling", ["hsnet_pairs", "hsnet_classes"])
def test_run_r_is_the_first_run_of_seed_plus_r(sampling):
    bare = lambda plan: [(d.class_id, *d.images) for d in plan]  # noqa: E731
    later = HSNetPlanner(POOLS, 1, 0, sampling).run(3, 50)
    assert bare(later) == bare(HSNetPlanner(POOLS, 1, 3, sampling).run(0, 50))
    assert bare(later) != bare(HSNetPlanner(POOLS, 1, 0, sampling).run(0, 50))


def test_pairs_are_those_of_the_plain_planner():
    ours, plain = HSNetPlanner(POOLS, 1, 0, "hsnet_pairs"), Planner(POOLS, 1, 0, sampling="pair")
    pairs = [[(d.query, d.class_id) for d in p.run(0, 20)] for p in (ours, plain)]
    assert pairs[0] == pairs[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("hsnet")
    make_folder(place / "set")
    return place


def quick(place):
    return [s for s in TINY if not s.startswith("head.")] + [f"data.root={place / 'set'}", "data.workers=0"]


@pytest.mark.parametrize("sampling", ["hsnet_pairs", "hsnet_classes"])
def test_a_test_of_them_depends_on_no_worker_and_no_batch(place, tmp_path, sampling):
    settings = [*quick(place), f"test.sampling={sampling}", "test.shots=5", "test.seed=0"]
    found = []
    for workers, batch in ((0, 1), (2, 4)):
        out = tmp_path / f"{workers}"
        more = [f"data.workers={workers}", f"test.batch={batch}", f"output={out}", "network=weights"]
        assert main(["test", "--data", "folder", "--head", "prototype", *settings, *more]) == 0
        (path,) = out.rglob(f"test_5shot_*_by_{sampling}_*/result.json")
        told = json.loads(Path(path).read_text())
        found.append((told["protocol"], told["scores"], path.with_name("episodes.csv").read_text()))
    assert found[0] == found[1]
    said = found[0][0]["sampling"]
    assert said.startswith("HSNet's draws over ") and "may repeat" in said


def test_they_are_another_protocol_and_go_through_a_file(place, tmp_path):
    settings = [*quick(place), "test.sampling=hsnet_classes", "test.shots=2"]
    config = load_config("folder", "prototype", settings)
    source = open_source(config.data, "val")
    plans = make_plans(config, source)
    out = tmp_path / "plan.txt"
    assert main(["plan", "--data", "folder", str(out), *settings]) == 0
    read = load_config("folder", "prototype", [*settings, f"test.plan={out}"])
    again = make_plans(read, source)
    assert again == plans and plan_hash(again, source) == plan_hash(plans, source)
    assert plans != make_plans(load_config("folder", "prototype", [*quick(place), "test.shots=2"]), source)
