"""Folds and episode plans."""

from pathlib import Path

import numpy as np
import pytest

from fss.data.folds import base_classes, novel_classes
from fss.data.index import Index
from fss.data.lists import Sample
from fss.data.plan import Draw, Planner, plan_hash, plan_lines
from fss.data.source import Source
from fss.errors import UserError


def source(pixels) -> Source:
    """A source whose files do not exist: planning must not touch them."""
    pixels = np.asarray(pixels)
    names = tuple(f"i{n}" for n in range(len(pixels)))
    count = pixels.shape[1] - 1
    samples = [Sample(n, Path(), ("", "")) for n in names]
    classes = tuple(f"c{i}" for i in range(1, count + 1))
    return Source(classes, [], list(range(1, count + 1)), samples, Index(names, pixels), "", None)


@pytest.fixture
def many():
    return source(np.random.default_rng(0).integers(0, 200, (40, 6)) * 1)


def test_folds_share_out_any_number_of_classes():
    folds = [novel_classes(11, f, 4, "contiguous") for f in range(4)]
    assert sorted(c for f in folds for c in f) == list(range(1, 12)) and {len(f) for f in folds} == {2, 3}
    assert set(base_classes(11, 1, 4, "contiguous")) == set(range(1, 12)) - set(folds[1])


def test_episodes_hold_what_they_promise(many):
    pools = many.pools([1, 2, 3, 4, 5], 100, 6, "error")
    plan = Planner(pools, 5, seed=7).run(0, 300)
    assert len(plan) == 300
    for draw in plan:
        assert len(set(draw.images)) == 6  # no support repeats or is the query
        assert all(many.index.pixels[i, draw.class_id] >= 100 for i in draw.images)
    queries = [d.query for d in plan]
    listed = sorted(set(queries))
    assert queries[: len(listed)] == listed == queries[len(listed) : 2 * len(listed)]  # cycling in order


def test_episode_is_a_function_of_seed_run_and_number(many):
    pools = many.pools([1, 2], 50, 2, "error")
    for shuffle in (False, True):
        plan = Planner(pools, 1, 3, shuffle).run(2, 50)
        assert Planner(pools, 1, 3, shuffle).draw(2, 31) == plan[31]
        assert Planner(pools, 1, 3, shuffle).run(1, 50) != plan != Planner(pools, 1, 4, shuffle).run(2, 50)


def test_sampling_by_class_draws_classes_alike():
    pixels = np.zeros((300, 3), int)
    pixels[:, 1], pixels[:6, 2] = 500, 500  # 300 images of one class, six of the other
    few = source(pixels)
    pools = few.pools([1, 2], 100, 2, "error")
    drawn = {s: Planner(pools, 1, 0, sampling=s).run(0, 600) for s in ("list", "class", "pair")}
    share = {s: sum(d.class_id == 2 for d in plan) / 600 for s, plan in drawn.items()}
    assert share["list"] < 0.05 and 0.4 < share["class"] < 0.6
    assert [(d.query, d.class_id) for d in drawn["pair"][:13:2]] == [(i, 1) for i in range(6)] + [(6, 1)]
    assert [(d.query, d.class_id) for d in drawn["pair"][1:12:2]] == [(i, 2) for i in range(6)]
    assert drawn["pair"][306].query == 0  # after 306 pairs it begins again
    for plan in drawn.values():
        assert all(few.index.pixels[i, d.class_id] >= 100 for d in plan for i in d.images)
        assert all(d.query not in d.supports for d in plan)
    again = Planner(pools, 1, 0, sampling="class")
    assert again.draw(0, 417) == drawn["class"][417]  # a function of seed, run and number alone


def test_hash_tells_plans_apart(many):
    pools = many.pools([1, 2], 50, 2, "error")
    hashes = [plan_hash([Planner(pools, 1, s).run(r, 9) for r in range(2)], many) for s in (3, 3, 4)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_small_class_is_named_or_dropped():
    few = source([[0, 500, 500], [0, 500, 0], [0, 500, 99]])
    with pytest.raises(UserError, match=r"c2 \(2\): 1"):
        few.pools([1, 2], 100, 2, "error")
    assert list(few.pools([1, 2], 100, 2, "drop")) == [1]
    with pytest.raises(UserError, match="no class"):
        few.pools([2], 100, 2, "drop")


def test_the_hash_knows_which_image_is_the_query_and_of_what_class(many):
    """Equal hashes, equal episodes: the same images in other parts are another plan."""
    draws = [Draw(1, 4, (7,), 0), Draw(1, 7, (4,), 0), Draw(2, 4, (7,), 0), Draw(1, 4, (7, 9), 0)]
    assert len({plan_hash([[d]], many) for d in draws}) == 4
    assert plan_hash([draws[:2]], many) != plan_hash([draws[1::-1]], many)
    assert plan_hash([draws[:1], draws[1:2]], many) != plan_hash([draws[:2]], many)  # runs are told apart
    assert plan_hash([[Draw(1, 4, (7,), 5)]], many) == plan_hash([draws[:1]], many)  # seeds have their own
    assert plan_lines(draws[2:], many) == ["c2\ti4\ti7", "c1\ti4\ti7\ti9"]


def test_an_image_counts_from_min_pixels_on():
    few = source([[0, 99], [0, 100], [0, 101]])
    assert few.index.images_of(1, 100).tolist() == [1, 2]
    assert few.pools([1], 100, 2, "error")[1].tolist() == [1, 2]
    with pytest.raises(UserError, match=r"c1 \(1\): 1"):
        few.pools([1], 101, 2, "error")


def test_seeds_of_episodes_are_31_bits(many):
    seeds = [d.seed for d in Planner(many.pools([1, 2], 50, 2, "error"), 1, 0).run(0, 400)]
    assert 0 <= min(seeds) < 0.02 * 2**31 and 0.98 * 2**31 < max(seeds) < 2**31
