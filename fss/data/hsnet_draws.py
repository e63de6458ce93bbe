"""The episodes that HSNet (ICCV 2021) was tested on, from the lengths of its lists alone.

Its program draws from NumPy's legacy generator, seeded once before the first episode, so that an episode
depends on all before it. The supports of one may repeat; the query is never among them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from fss.data.plan import Draw, Planner


class Row(NamedTuple):
    """An episode: its class, and the places of query and supports in the class's list."""

    class_id: int
    query: int
    supports: tuple[int, ...]


def pair_rows(
    pairs: Sequence[tuple[int, int]], lengths: Mapping[int, int], shots: int, seed: int
) -> Iterator[Row]:
    """Endless episodes as on PASCAL: the pairs in turn, each with supports that are drawn one by one.

    Args:
        pairs: class, and place of the query in the class's list.
        lengths: class -> length of its list, 2 or more.

    Raises:
        ValueError: a class has no image beside the query, so that drawing would never end.
    """
    _check(lengths)
    random = np.random.RandomState(seed)
    for class_id, query in cycle(pairs):
        yield Row(class_id, query, _supports(random, lengths[class_id], query, shots))


def class_rows(lengths: Mapping[int, int], shots: int, seed: int) -> Iterator[Row]:
    """Endless episodes as on COCO: a class, one of its images as query, then supports one by one.

    Arguments and errors as of `pair_rows`.
    """
    _check(lengths)
    random, classes = np.random.RandomState(seed), sorted(lengths)
    while True:
        class_id = classes[_one(random, len(classes))]
        query = _one(random, lengths[class_id])
        yield Row(class_id, query, _supports(random, lengths[class_id], query, shots))


def _check(lengths: Mapping[int, int]) -> None:
    short = [c for c, length in lengths.items() if length < 2]
    if short:
        raise ValueError(f"class {short[0]} has {lengths[short[0]]} image(s); a query and a support are 2")


def _supports(random: np.random.RandomState, length: int, query: int, shots: int) -> tuple[int, ...]:
    """Places of the supports, each drawn again while it is the query's."""
    places: list[int] = []
    while len(places) < shots:
        place = _one(random, length)
        places += [] if place == query else [place]
    return tuple(places)


def _one(random: np.random.RandomState, length: int) -> int:
    """One of so many, as the program draws it: the first of a permutation of all."""
    return int(random.choice(length, 1, replace=False)[0])


class HSNetPlanner(Planner):
    """Plans by HSNet's draws; run r is drawn with seed + r, so that each can be made without the others.

    What else is random in an episode has a seed that does not disturb them.

    Args:
        sampling: "hsnet_pairs" or "hsnet_classes"; all else as of `Planner`.
    """

    def __init__(self, pools: dict[int, np.ndarray], shots: int, seed: int, sampling: str) -> None:
        super().__init__(pools, shots, seed, sampling=sampling)

    def run(self, run: int, episodes: int) -> list[Draw]:
        """As of `Planner`."""
        seeds = (int(np.random.default_rng([self.seed, run, i]).integers(2**31)) for i in range(episodes))
        return [self._placed(row, seed) for seed, row in zip(seeds, self._rows(run), strict=False)]

    def draw(self, run: int, i: int) -> Draw:
        """As of `Planner`, at the cost of all episodes before."""
        return self.run(run, i + 1)[-1]

    def _rows(self, run: int) -> Iterator[Row]:
        lengths = {class_id: len(pool) for class_id, pool in self.pools.items()}
        if self.sampling == "hsnet_classes":
            return class_rows(lengths, self.shots, self.seed + run)
        places = {c: {image: i for i, image in enumerate(pool.tolist())} for c, pool in self.pools.items()}
        pairs = [(c, places[c][image]) for image, c in self.pairs]
        return pair_rows(pairs, lengths, self.shots, self.seed + run)

    def _placed(self, row: Row, seed: int) -> Draw:
        """A row's places as positions in the split's list."""
        query, *supports = self.pools[row.class_id][[row.query, *row.supports]].tolist()
        return Draw(row.class_id, query, tuple(supports), seed)
