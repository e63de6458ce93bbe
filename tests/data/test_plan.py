"""Folds and episode plans."""

import numpy as np
import pytest

from fss.data.folds import base_classes, novel_classes
from fss.data.index import Index
from fss.data.plan import Planner, plan_hash
from fss.data.source import Source
from fss.data.voc import Sample
from fss.errors import UserError


def source(pixels) -> Source:
    """A source whose files do not exist: planning must not touch them."""
    pixels = np.asarray(pixels)
    names = tuple(f"i{n}" for n in range(len(pixels)))
    count = pixels.shape[1] - 1
    samples = [Sample(n, None, None) for n in names]  # type: ignore[arg-type]
    classes = tuple(f"c{i}" for i in range(1, count + 1))
    return Source(classes, [], list(range(1, count + 1)), samples, Index(names, pixels), "", None)


@pytest.fixture
def many():
    return source(np.random.default_rng(0).integers(0, 200, (40, 6)) * 1)


def test_pascal_and_coco_folds():
    assert novel_classes(20, 2, 4, "contiguous") == [11, 12, 13, 14, 15]
    assert (
        novel_classes(80, 1, 4, "interleaved")[:3] == [2, 6, 10]
        and len(novel_classes(80, 1, 4, "interleaved")) == 20
    )
    assert novel_classes(80, 3, 4, "contiguous") == list(range(61, 81))
    assert (
        novel_classes(20, -1, 4, "contiguous") == list(range(1, 21))
        and base_classes(20, -1, 4, "contiguous") == []
    )


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
