"""Ways to learn of `votes_decoder`, tried on base classes of training photos alone.

The base classes of a fold are dealt into four groups. A decoder learns from episodes of three groups, with
one support and with five, and is scored on those of the fourth: what it gains there over the votes. So what a
fold says has seen neither a class that this fold tests nor a photo of any test. Every way differs from the
one that was chosen (`as chosen`, configs/head/votes_decoder.yaml) in what it names.

    python studies/choose_decoder.py data/msrc studies/results/decoder_choice.json [--groups 0,2]

A run that was stopped goes on: results that the file has are skipped.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from choose_votes import Photos, episodes
from torch import Tensor, nn

from fss.bars import Bar
from fss.data.folds import base_classes
from fss.heads import Encoded, build_head
from fss.heads.votes_decoder import INPUTS, VotesDecoder, first_supports, votes_in
from fss.metrics import counts
from fss.ops import binary_mask, resize, segmentation_loss
from fss.recipes import load_config
from fss.runs.folders import environment
from fss.writing import write_text

STEPS, BATCH, RATE = 300, 12, 2e-3
SHOTS = (1, 5)
# Inputs where the votes have three levels: cosines with the supports' prototypes, with the query's own, and
# of both with each other.
SUPPORTS, OWN, BOTH = slice(11, 14), slice(14, 17), slice(17, 18)


class Way(NamedTuple):
    """A way to learn.

    Attributes:
        options: of the head.
        without: inputs that are hidden from the decoder.
        shots: of the episodes that it learns from.
        share: of the episodes of each class.
        alike: whether classes come equally often, rather than as photos show them.
        classes: share of the classes that a step draws from.
        linear: whether the decoder is a single weight of each input, cell by cell.
        noise: deviation of a shift of each input, its own in each episode.
        mix: whether each episode is mixed with another one, inputs and answers.
        distil: weight of a loss that draws the answer by the first of five supports to that by all.
    """

    options: Mapping[str, Any] = MappingProxyType({})
    without: tuple[slice, ...] = ()
    shots: Sequence[int] = (1, 5)
    share: float = 1
    alike: bool = True
    classes: float = 1
    linear: bool = False
    noise: float = 0
    mix: bool = False
    distil: float = 0
    steps: int = STEPS


WAYS = {
    "as chosen": Way(),
    "without caution": Way({"caution": 0}),
    "24 channels": Way({"width": 24}),
    "without the query's own prototypes": Way(without=(OWN, BOTH)),
    "without any prototype": Way(without=(SUPPORTS, OWN, BOTH)),
    "temperature and balance alone": Way(linear=True),
    "episodes of one support alone": Way(shots=(1,)),
    "a third of the episodes": Way(share=1 / 3),
    "classes as often as photos show them": Way(alike=False),
    "half of the classes in a step": Way(classes=0.5),
    "inputs shifted": Way(noise=0.2),
    "episodes mixed": Way(mix=True),
    "five supports teach one": Way(distil=1),
    "three times the steps": Way(steps=3 * STEPS),
}


class Pool(NamedTuple):
    """Episodes as the head prepares them: inputs (N,I,h,w), by the first support alone too, the queries'
    masks (N,S,S), and of each its class and how many supports it has, (N,)."""

    inputs: Tensor
    by_first: Tensor
    masks: Tensor
    classes: Tensor
    shots: Tensor

    def numbers(self, label: int, shots: Sequence[int]) -> np.ndarray:
        """Numbers of a class's episodes with these numbers of supports."""
        mine = (self.classes == label) & torch.isin(self.shots, torch.tensor(shots))
        return torch.nonzero(mine)[:, 0].numpy()


@torch.no_grad()
def prepared(photos: Photos, options: dict[str, Any], count: int, pixels: int, seed: int) -> Pool:
    """Of each class, `count` episodes with five supports, and twice as many with one."""
    head = build_head("votes_decoder", options, photos.model.backbone.channels).eval()
    head.corners = photos.model.corners
    maps = [head.encode({k: f[k] for k in head.levels}) for f in photos.features]
    drawn = [e for k in SHOTS for e in episodes(photos, k, count if k > 1 else 2 * count, pixels, seed)]
    inputs, by_first, masks = [], [], []
    for label, chosen in Bar(drawn, "episodes", leave=False):
        which = torch.tensor(chosen)
        seen = binary_mask(photos.labels[which], torch.full((len(which),), label))  # (1+K,S,S)
        e = Encoded(
            maps[chosen[0]], {k: torch.stack([maps[i][k] for i in chosen[1:]], 1) for k in maps[0]},
            seen[None, 1:], [0], photos.model.corners, photo=photos.inside[which[:1]],
        )  # fmt: skip
        inputs.append(head.prepare(e).query[INPUTS])
        several = len(chosen) > 2
        by_first.append(head.prepare(first_supports(e, 1)).query[INPUTS] if several else inputs[-1])
        masks.append(seen[0].to(torch.uint8))
    labels, shots = (torch.tensor(x) for x in zip(*((c, len(w) - 1) for c, w in drawn), strict=True))
    return Pool(torch.cat(inputs), torch.cat(by_first), torch.stack(masks), labels, shots)


def learn(
    way: Way, pool: Pool, classes: Sequence[int], photos: Photos, options: dict[str, Any], seed: int = 0
) -> VotesDecoder:
    """A decoder after its steps."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    head = build_head("votes_decoder", {**options, **way.options}, photos.model.backbone.channels).train()
    assert isinstance(head, VotesDecoder)
    head.corners = photos.model.corners
    if way.linear:
        head.decoder = nn.Conv2d(pool.inputs.shape[1], 1, 1)
        nn.init.zeros_(head.decoder.weight)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.01)
    every = {c: random.permutation(pool.numbers(c, way.shots)) for c in classes}
    of_class = {c: x[: max(1, round(way.share * len(x)))] for c, x in every.items() if len(x)}
    shown = np.array([len(photos.source.index.images_of(c, 1024)) for c in of_class], float)
    for step in range(way.steps):
        some = list(of_class)
        if way.classes < 1:
            some = random.choice(some, round(way.classes * len(some)), replace=False).tolist()
        share = None if way.alike else shown / shown.sum()
        which = [random.choice(of_class[c]) for c in random.choice(some, BATCH, p=share)]
        inputs, masks = hidden(way, pool.inputs[which]), pool.masks[which, ::2, ::2].long()
        if way.noise:
            inputs[:, 2:] += way.noise * torch.randn(*inputs[:, 2:].shape[:2], 1, 1)
        loss = loss_of(head, inputs, masks)
        if way.mix:
            a = float(random.beta(0.4, 0.4))
            other = torch.tensor(random.permutation(len(which)))
            both = a * inputs + (1 - a) * inputs[other]
            loss = a * loss_of(head, both, masks) + (1 - a) * loss_of(head, both, masks[other])
        if way.distil:
            taught = [random.choice(pool.numbers(c, [5])) for c in random.choice(some, BATCH)]
            by_all, by_one = (head.answer(x[taught])[:, 1] for x in (pool.inputs, pool.by_first))
            alike = F.binary_cross_entropy_with_logits(by_one, by_all.detach().sigmoid())
            loss = loss + way.distil * alike
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress = (step + 1) / way.steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, progress / 0.1) * (1 + np.cos(np.pi * progress)) / 2
    return head.eval()


def hidden(way: Way, inputs: Tensor) -> Tensor:
    """A copy of the inputs, zero where the way hides them."""
    inputs = inputs.clone()
    for part in way.without:
        inputs[:, part] = 0
    return inputs


def loss_of(head: VotesDecoder, inputs: Tensor, masks: Tensor) -> Tensor:
    """All losses of the trainer and the head."""
    shown = torch.ones(len(inputs), 1, 1, 1, dtype=torch.int64)
    out = head(Encoded({INPUTS: inputs}, {}, shown, [0] * len(inputs), head.corners, masks, prepared=True))
    return segmentation_loss(out.logits, masks, False, head.corners) + sum(out.losses.values())


@torch.no_grad()
def scores(answer: Callable[[Tensor], Tensor], pool: Pool, classes: Sequence[int]) -> list[float]:
    """mIoU over the episodes of some classes, with one support and with five, percent.

    Args:
        answer: inputs (N,I,h,w) -> the foreground's log-odds (N,1,h,w).
    """
    means = []
    for shots in SHOTS:
        each = []
        for which in (pool.numbers(label, [shots]) for label in classes):
            if not len(which):
                continue
            masks = pool.masks[which].long()
            lead = resize(answer(pool.inputs[which]), (masks.shape[-2], masks.shape[-1]), corners=True)
            inter, union = counts((lead[:, 0] > 0).long(), masks)
            each.append(100 * float(inter[:, 1].sum() / union[:, 1].sum().clamp(min=1)))
        means.append(float(np.mean(each)))
    return means


def main() -> None:
    """Every way on every fold and group, written down one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--groups", default="0,1,2,3", help="that are held out in turn")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--episodes", type=int, default=30, help="of a class")
    parser.add_argument("--pixels", type=int, default=1024, help="of the class, for a photo to show it")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    config = load_config("folder", "votes_decoder", [f"data.root={given.root}", "data.size=257"])
    photos, options = Photos(config), dict(config.head.options)
    pool = prepared(photos, options, given.episodes, given.pixels, given.seed)
    report: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"gains": {}}
    report |= {"date": date.today().isoformat(), "set": given.root.name, "episodes": given.episodes}
    report |= {"seed": given.seed, "environment": environment(torch.device("cpu"))}
    for group in map(int, given.groups.split(",")):
        for fold in range(4):
            base = base_classes(len(photos.source.classes), fold, 4, "contiguous")
            held_out = base[group::4]
            before = scores(votes_in, pool, held_out)
            for name in given.ways.split(","):
                key = f"{name}, fold {fold}, group {group}"
                if key in report["gains"]:
                    continue
                way = WAYS[name]
                head = learn(way, pool, [c for c in base if c not in held_out], photos, options)
                after = scores(lambda x: head.answer(hidden(way, x))[:, 1:], pool, held_out)  # noqa: B023
                report["gains"][key] = [round(b - a, 2) for a, b in zip(before, after, strict=True)]
                given.out.parent.mkdir(parents=True, exist_ok=True)
                write_text(given.out, json.dumps(report, indent=1) + "\n")
                print(key, report["gains"][key], flush=True)


if __name__ == "__main__":
    main()
