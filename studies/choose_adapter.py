"""What learning on features would gain over the votes, tried on base classes of training photos alone.

As in `choose_decoder.py`: the base classes of a fold in four groups, one held out in turn, and what is gained
there over the votes. An adapter adds U relu(V x) to each cell x of all levels together, with U zero at the
start, and learns through the votes and their walk. For speed votes are cast on fewer cells, before and after.

    python studies/choose_adapter.py data/msrc studies/results/adapter_choice.json [--groups 0,3]

A run that was stopped goes on: results that the file has are skipped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from choose_votes import Photos, episodes
from torch import Tensor, nn

from fss.bars import Bar
from fss.data.folds import base_classes
from fss.heads.cells import mask_areas
from fss.heads.votes import MAP, Cells, Votes
from fss.heads.votes_decoder import episode_losses
from fss.metrics import counts
from fss.ops import binary_mask, resize
from fss.recipes import load_config
from fss.runs.folders import environment
from fss.writing import write_text

SIDE, BATCH, RATE, RANK = 17, 8, 1e-3, 64
SHOTS = (1, 5)
Drawn = tuple[int, np.ndarray]  # class, and the photos of query and supports


class Way(NamedTuple):
    """A way to learn.

    Attributes:
        steps: of `BATCH` episodes, with one support and with five in turn.
        classes: share of the classes that a step draws from.
        noise: deviation of what is added to the features, as a share of their own.
        changed: whether half of the photos are seen mirrored, in other colours.
        learned_votes: whether temperature, balance and share of the walk learn too.
        leave_one_out: whether a support of each episode is asked of all its other photos, too.
        clusters: number of clusters of unlabelled cells that are classes beside the base classes.
        background: cells of base classes that vote for background beside the supports', none learned.
    """

    steps: int = 200
    classes: float = 1
    noise: float = 0
    changed: bool = False
    learned_votes: bool = False
    leave_one_out: bool = False
    clusters: int = 0
    background: int = 0


WAYS = {
    "adapter": Way(),
    "three times the steps": Way(steps=600),
    "half of the classes in a step": Way(classes=0.5),
    "features shifted": Way(noise=0.3),
    "photos mirrored, in other colours": Way(changed=True),
    "temperature, balance and walk as well": Way(learned_votes=True),
    "supports asked of each other": Way(leave_one_out=True),
    "clusters of unlabelled cells as classes": Way(clusters=16),
    "no adapter, but base classes vote for background": Way(steps=0, background=1500),
}


class Adapter(nn.Module):
    """Features (...,C) -> the same at length 1; temperature, balance and walk of the votes."""

    def __init__(self, channels: int, head: Votes) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, RANK), nn.Linear(RANK, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.log_tau = nn.Parameter(torch.tensor(float(np.log(head.tau))))
        self.balance = nn.Parameter(torch.zeros(()))
        self.walk = nn.Parameter(torch.tensor(float(np.log(head.walk / (1 - head.walk)))))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x + self.up(self.down(x).relu()), dim=-1)


class Small:
    """The photos' joined maps, (N,n,C), and all else that an episode needs, on n = `SIDE` x `SIDE` cells."""

    def __init__(self, photos: Photos, options: dict[str, Any]) -> None:
        head, maps = photos.maps(options)
        assert isinstance(head, Votes)
        self.photos, self.head, self.corners = photos, head, bool(photos.model.corners)
        self.cells = self._small(maps)
        off, on = mask_areas(photos.inside[:, None].long(), (SIDE, SIDE), self.corners)[:, 0].unbind(1)
        self.on_photo = (on > off).flatten(1)

    def _small(self, maps: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,n,C), at length 1."""
        return F.normalize(resize(maps, (SIDE, SIDE), self.corners), dim=1).flatten(2).mT.contiguous()

    @torch.no_grad()
    def changed(self) -> Tensor:
        """Cells (N,n,C) of the photos mirrored and in other colours, mirrored back."""
        random = torch.Generator().manual_seed(0)
        maps = []
        for i in Bar(range(len(self.cells)), "changed photos", leave=False):
            image = self.photos.pictures.load(i).image[None].float()
            gain = 1 + 0.3 * torch.randn(1, 3, 1, 1, generator=random)
            other = ((image.flip(-1) - 128) * gain + 128).clamp(0, 255)
            features = self.photos.model.extract(other)
            maps.append(self.head.encode({k: features[k] for k in self.head.levels})[MAP].flip(-1))
        return self._small(torch.cat(maps))

    def batch(self, drawn: Sequence[Drawn], labels: Tensor, cells: Tensor) -> tuple[Cells, Tensor]:
        """Cells of episodes of as many supports each, and the queries' masks (B,S,S).

        Args:
            labels: of all photos, (N,S,S).
            cells: of all photos, (N,n,C).
        """
        classes, which = torch.tensor([c for c, _ in drawn]), torch.tensor(np.array([w for _, w in drawn]))
        seen = binary_mask(labels[which], classes)  # (B,1+K,S,S)
        area = mask_areas(seen[:, 1:], (SIDE, SIDE), self.corners).flatten(-2).mT.flatten(1, 2)
        support = cells[which[:, 1:]].flatten(1, 2)
        return Cells(cells[which[:, 0]], support, area, self.on_photo[which[:, 0]]), seen[:, 0]

    def answer(self, cells: Cells, shots: int, adapter: Adapter | None = None, votes: bool = False) -> Tensor:
        """Logits (B,2,h,w), after an adapter, and by its votes' constants."""
        if adapter:
            cells = cells._replace(query=adapter(cells.query), support=adapter(cells.support))
        odds = self._learned(cells, shots, adapter) if adapter and votes else self._votes(cells, shots)
        odds = odds.unflatten(1, (SIDE, SIDE))[:, None]
        return torch.cat([torch.zeros_like(odds), odds], 1)

    def _votes(self, cells: Cells, shots: int) -> Tensor:
        """Log-odds (B,n)."""
        return self.head._walk(cells, self.head._vote(cells, shots))

    def _learned(self, cells: Cells, shots: int, adapter: Adapter) -> Tensor:
        """The same, with the adapter's temperature, balance and walk."""
        factor = (self.head.tau / adapter.log_tau.exp()).sqrt()  # of both sides of each cosine
        warm = cells._replace(query=factor * cells.query, support=factor * cells.support)
        odds = self.head._vote(warm, shots) + adapter.balance
        walked = self.head._walk(cells, odds)  # at the head's share; the learned one goes between and beyond
        share = adapter.walk.sigmoid() / self.head.walk
        return share * walked + (1 - share) * odds


def pools_of(labels: Tensor, classes: Sequence[int], pixels: int) -> dict[int, np.ndarray]:
    """Photos of each class, of those with more than enough for an episode."""
    every = {c: torch.nonzero((labels == c).sum((1, 2)) >= pixels)[:, 0].numpy() for c in classes}
    return {c: pool for c, pool in every.items() if len(pool) > max(SHOTS)}


def clustered(small: Small, classes: Sequence[int], count: int) -> Tensor:
    """Labels (N,S,S): those of `classes`, and k-means clusters of all other cells on photos, from 1000 on."""
    from scipy.cluster.vq import kmeans2

    labels = small.photos.labels.clone()
    side = labels.shape[-1]
    ours = torch.isin(labels, torch.tensor(list(classes)))
    share = F.adaptive_avg_pool2d(ours[:, None].float(), SIDE).flatten(1)  # (N,n)
    free = (share < 0.1) & small.on_photo
    x = small.cells[free].numpy()
    directions = np.linalg.svd(x[::7] - x.mean(0), full_matrices=False)[2][:32]  # of most variance
    _, of = kmeans2((x - x.mean(0)) @ directions.T, count, iter=30, minit="++", seed=0)
    grid = torch.zeros(free.shape)
    grid[free] = 1000 + torch.from_numpy(of).float()
    drawn = F.interpolate(grid.unflatten(1, (SIDE, SIDE))[:, None], (side, side), mode="nearest")[:, 0]
    return torch.where(ours, labels, drawn.to(labels.dtype))


def learn(way: Way, small: Small, classes: Sequence[int], pixels: int) -> Adapter:
    """An adapter after its steps."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    adapter = Adapter(small.cells.shape[2], small.head)
    optimizer = torch.optim.AdamW(adapter.parameters(), RATE, weight_decay=0.01)
    labels = clustered(small, classes, way.clusters) if way.clusters else small.photos.labels
    pools = pools_of(labels, [*classes, *range(1000, 1000 + way.clusters)], pixels)
    sources = [small.cells, *([small.changed()] if way.changed else [])]
    for step in range(way.steps):
        shots = SHOTS[step % 2]
        some = random.choice(list(pools), round(way.classes * len(pools)), replace=False)
        drawn = [
            (int(c), random.choice(pools[c], 1 + shots, replace=False)) for c in random.choice(some, BATCH)
        ]
        asked = [drawn, *([[(c, np.roll(w, 1)) for c, w in drawn]] if way.leave_one_out else [])]
        loss = torch.zeros(())
        for each in asked:
            cells, masks = small.batch(each, labels, sources[step // 2 % len(sources)])
            if way.noise:
                cells = cells._replace(query=shifted(cells.query, way), support=shifted(cells.support, way))
            logits = small.answer(cells, shots, adapter, way.learned_votes)
            loss = loss + episode_losses(logits, masks[:, ::2, ::2], small.corners).sum(0).mean() / len(asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + np.cos(np.pi * (step + 1) / way.steps)) / 2
    return adapter.eval()


def shifted(cells: Tensor, way: Way) -> Tensor:
    """Cells (B,n,C) with noise, at length 1."""
    return F.normalize(cells + way.noise * cells.std() * torch.randn_like(cells), dim=2)


def with_background(small: Small, classes: Sequence[int], count: int) -> Callable[[Cells, int], Cells]:
    """Adds `count` cells of base classes as background to the supports' cells.

    Together they weigh a quarter of a support's pixels.
    """
    random = np.random.default_rng(0)
    labels = F.interpolate(small.photos.labels[:, None].float(), (SIDE, SIDE), mode="nearest")
    mine = torch.nonzero(torch.isin(labels.flatten(1).long(), torch.tensor(list(classes))))
    chosen = mine[torch.tensor(random.choice(len(mine), count, replace=False))]
    memory = small.cells[chosen[:, 0], chosen[:, 1]]  # (count,C)

    def grown(cells: Cells, shots: int) -> Cells:
        b = len(cells.query)
        area = cells.area.new_zeros(b, count, 2)
        area[..., 0] = cells.area.sum((1, 2))[:, None] / shots / 4 / count
        return cells._replace(
            support=torch.cat([cells.support, memory.expand(b, -1, -1)], 1),
            area=torch.cat([cells.area, area], 1),
        )

    return grown


Answer = Callable[[Cells, int], Tensor]  # cells, shots -> logits


@torch.no_grad()
def scores(
    answer: Answer, small: Small, classes: Sequence[int], drawn: dict[int, list[Drawn]]
) -> list[float]:
    """mIoU over the episodes of some classes, with one support and with five, percent."""
    means = []
    for shots in SHOTS:
        each = []
        for mine in ([e for e in drawn[shots] if e[0] == label] for label in classes):
            if not mine:
                continue
            cells, masks = small.batch(mine, small.photos.labels, small.cells)
            logits = resize(answer(cells, shots), (masks.shape[-2], masks.shape[-1]), small.corners)
            inter, union = counts(logits.argmax(1), masks)
            each.append(100 * float(inter[:, 1].sum() / union[:, 1].sum().clamp(min=1)))
        means.append(float(np.mean(each)))
    return means


def after(way: Way, small: Small, classes: Sequence[int], pixels: int) -> Answer:
    """How episodes are answered after learning."""
    if way.background:
        grown = with_background(small, classes, way.background)
        return lambda cells, shots: small.answer(grown(cells, shots), shots)
    adapter = learn(way, small, classes, pixels)
    return lambda cells, shots: small.answer(cells, shots, adapter, way.learned_votes)


def main() -> None:
    """Every way on every fold and group, written down one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--groups", default="0,1,2,3", help="that are held out in turn")
    parser.add_argument("--folds", default="0,1,2,3")
    parser.add_argument("--ways", default=";".join(WAYS), help="by name, separated by semicolons")
    parser.add_argument("--episodes", type=int, default=30, help="of a class, of either kind")
    parser.add_argument("--pixels", type=int, default=1024, help="of the class, for a photo to show it")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    config = load_config("folder", "votes", [f"data.root={given.root}", "data.size=257"])
    photos = Photos(config)
    small = Small(photos, dict(config.head.options))
    drawn = {k: episodes(photos, k, given.episodes, given.pixels, given.seed) for k in SHOTS}
    report: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"gains": {}}
    report |= {"date": date.today().isoformat(), "set": given.root.name, "episodes": given.episodes}
    report |= {"seed": given.seed, "environment": environment(torch.device("cpu"))}
    for group in map(int, given.groups.split(",")):
        for fold in map(int, given.folds.split(",")):
            base = base_classes(len(photos.source.classes), fold, 4, "contiguous")
            held_out, rest = base[group::4], [c for c in base if c not in base[group::4]]
            before = scores(small.answer, small, held_out, drawn)
            for name in given.ways.split(";"):
                key = f"{name}, fold {fold}, group {group}"
                if key in report["gains"]:
                    continue
                gained = scores(after(WAYS[name], small, rest, given.pixels), small, held_out, drawn)
                report["gains"][key] = [round(b - a, 2) for a, b in zip(before, gained, strict=True)]
                given.out.parent.mkdir(parents=True, exist_ok=True)
                write_text(given.out, json.dumps(report, indent=1) + "\n")
                print(key, report["gains"][key], flush=True)


if __name__ == "__main__":
    main()
