"""Plans of episodes, settled before anything is loaded.

Episode i of run r is a function of (seed, r, i) and the index alone, so worker count, process count,
batch size and head cannot change it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fss.data.source import Source


@dataclass(frozen=True)
class Draw:
    """One planned episode: positions in the split's list, and the seed for all its other randomness."""

    class_id: int
    query: int
    supports: tuple[int, ...]
    seed: int

    @property
    def images(self) -> tuple[int, ...]:
        """Query first, then the supports."""
        return (self.query, *self.supports)


class Planner:
    """Draws episodes from the images that count for some classes.

    Args:
        pools: class -> positions of its counting images, each with at least shots + 1.
        shots: K.
        seed: of the whole plan.
        shuffle: go through the query images in a new order every run (training) or in the list's
            order, cycling (published testing).
        sampling: "list": query images in turn, a class at random among those that count in it (published);
            "class": a class at random, then one of its images; "pair": every pair of image and class in
            turn, in the list's order.
    """

    def __init__(
        self, pools: dict[int, np.ndarray], shots: int, seed: int, shuffle: bool = False,
        sampling: str = "list",
    ) -> None:  # fmt: skip
        self.pools, self.shots, self.seed, self.shuffle = pools, shots, seed, shuffle
        self.sampling = sampling
        classes_of: dict[int, list[int]] = {}
        for class_id, images in sorted(pools.items()):
            for image in images.tolist():
                classes_of.setdefault(image, []).append(class_id)
        self.queries = sorted(classes_of)
        self.classes_of = classes_of
        self.pairs = [(image, c) for image in self.queries for c in classes_of[image]]

    def draw(self, run: int, i: int) -> Draw:
        """Episode i of a run: a query and one of its counting classes, K other images of that class."""
        random = np.random.default_rng([self.seed, run, i])
        query, class_id = self._pair(run, i, random)
        others = self.pools[class_id][self.pools[class_id] != query]
        supports = random.choice(others, self.shots, replace=False)
        return Draw(class_id, query, tuple(supports.tolist()), int(random.integers(2**31)))

    def _pair(self, run: int, i: int, random: np.random.Generator) -> tuple[int, int]:
        if self.sampling == "class":
            class_id = int(random.choice(list(self.pools)))
            return int(random.choice(self.pools[class_id])), class_id
        if self.sampling == "pair":
            return self.pairs[i % len(self.pairs)]
        query = self._query(run, i)
        return query, int(random.choice(self.classes_of[query]))

    def _query(self, run: int, i: int) -> int:
        if not self.shuffle:
            return self.queries[i % len(self.queries)]
        lap, place = divmod(i, len(self.queries))
        # A fourth number salts the seed, so that the order shares no stream with an episode's own draw.
        order = np.random.default_rng([self.seed, run, lap, 1]).permutation(len(self.queries))
        return self.queries[order[place]]

    def run(self, run: int, episodes: int) -> list[Draw]:
        """The first `episodes` episodes of a run."""
        return [self.draw(run, i) for i in range(episodes)]


def plan_lines(plan: Sequence[Draw], source: Source) -> list[str]:
    """The plan as text, a line an episode: class name, query, supports; tab-separated image names."""
    names = source.index.names
    return ["\t".join([source.classes[d.class_id - 1], *(names[i] for i in d.images)]) for d in plan]


def plan_hash(runs: Sequence[Sequence[Draw]], source: Source) -> str:
    """sha256 over the text of all runs: equal hashes, equal episodes."""
    text = "\n\n".join("\n".join(plan_lines(plan, source)) for plan in runs)
    return hashlib.sha256(text.encode()).hexdigest()
