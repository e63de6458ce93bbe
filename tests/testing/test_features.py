"""Features that are kept: as many as the budget takes, the rest made anew, and the episodes the same."""

from collections import Counter

import pytest
import torch

from fss.data.canvas import Canvas
from fss.data.episodes import PictureSet
from fss.data.plan import Draw
from fss.data.source import open_source
from fss.recipes import load_config
from fss.testing import features
from fss.testing.features import FeatureStore
from tests.make import make_folder

SIZE = 49
CPU = torch.device("cpu")


class Watching:
    """Keeps the image and counts how often each is encoded, by its sum; a support that is cut is masked."""

    corners, query_only = True, ()

    def __init__(self, cuts=False):
        self.alike, self.cuts, self.seen = not cuts, cuts, Counter()

    def query(self, image):
        self.seen["query", float(image.double().sum())] += 1
        return {"x": image * 2}

    def support(self, image, mask):
        key = (mask if self.cuts else image).double().sum() + image.double().sum()
        self.seen["support", float(key)] += 1
        return {"x": image * (mask == 1)[:, None] if self.cuts else image * 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    place = tmp_path_factory.mktemp("features")
    root = make_folder(place / "set")
    settings = [f"data.root={root}", f"data.size={SIZE}", "data.min_pixels=1"]
    return open_source(load_config("folder", "prototype", settings).data, "val")


def plan(source):
    """Episodes that come back to their images: of each class, every image as query of the next two."""
    draws = []
    for c in (1, 2):
        having = [i for i in range(len(source.samples)) if c in (i % 4 + 1, (i + 1) % 4 + 1)]
        draws += [Draw(c, having[n], (having[n - 1], having[n - 2]), n) for n in range(len(having))]
    return [draws[i : i + 3] for i in range(0, len(draws), 3)]


def run(source, encoder, gib, rounds=2):
    store = FeatureStore(PictureSet(source, Canvas(SIZE)), encoder, CPU, gib, 0)
    return store, [ready for _ in range(rounds) for ready in store.episodes(plan(source))]


def same(one, other):
    a, b = one.encoded, other.encoded
    return all(
        torch.equal(x, y)
        for x, y in [
            (a.query["x"], b.query["x"]), (a.support["x"], b.support["x"]),
            (a.support_masks, b.support_masks), (a.photo, b.photo), (one.query_mask, other.query_mask),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("cuts", [False, True])
def test_a_tiny_budget_encodes_again_and_changes_nothing(source, cuts):
    rich, poor, none = Watching(cuts), Watching(cuts), Watching(cuts)
    whole, wanted = run(source, rich, None)
    one = (4 * 3 + 1) * SIZE * SIZE  # bytes: the features, and the labels beside them
    some, got = run(source, poor, 3.5 * one / 2**30)
    nothing, bare = run(source, none, 0)
    assert len(some.features) == 3 and not nothing.features and not nothing.images
    assert len(whole.features) == len(rich.seen) and set(some.images) == {k.position for k in some.features}
    assert len(wanted) == len(got) == len(bare) > 4
    assert all(same(a, b) and same(a, c) for a, b, c in zip(wanted, got, bare, strict=True))
    assert sum(rich.seen.values()) < sum(poor.seen.values()) < sum(none.seen.values())


def test_one_encoding_of_an_image_serves_query_and_support(source):
    encoder = Watching()
    store, _ = run(source, encoder, None)
    images = {i for chunk in plan(source) for d in chunk for i in (d.query, *d.supports)}
    # The first encoding of all is made twice: once to learn how large one is.
    assert sum(encoder.seen.values()) == len(images) + 1 and len(store.images) == len(images)


def test_a_head_that_cuts_encodes_once_for_each_image_and_class(source):
    encoder = Watching(cuts=True)
    store, ready = run(source, encoder, None)
    draws = [d for chunk in plan(source) for d in chunk]
    pairs = {(i, d.class_id) for d in draws for i in d.supports}
    assert len(pairs) > len({i for i, _ in pairs})  # some image is a support of two classes
    kept = [(k.position, k.class_id) for k in store.features if k.role == "support"]
    assert sorted(kept) == sorted(pairs)
    # The first of all is made twice: once to learn how large one is.
    assert sum(n for (role, _), n in encoder.seen.items() if role == "support") == len(pairs) + 1
    for batch in ready:
        masks = (batch.encoded.support_masks == 1)[:, :, None]
        assert (batch.encoded.support["x"] * ~masks == 0).all() and batch.encoded.support["x"].any()


def test_stores_of_one_run_share_what_is_free(source, monkeypatch):
    """The budget is asked when features come, not when a store is made: the first one's are gone by then."""
    free = [10.0 * 2**20]
    monkeypatch.setattr(features, "budget", lambda gib: free[0] if gib is None else gib * 2**30)
    first = FeatureStore(PictureSet(source, Canvas(SIZE)), Watching(), CPU, None, 0)
    second = FeatureStore(PictureSet(source, Canvas(SIZE)), Watching(), CPU, None, 0)
    list(first.episodes(plan(source)))
    free[0] = 0.0
    list(second.episodes(plan(source)))
    assert first.features and not second.features
