"""Scoring on planned episodes: of a model of ours, or of whatever answers. Knows no head by name."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fss.bars import Bar
from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.episodes import PictureSet
from fss.data.plan import Draw
from fss.data.source import Source
from fss.episode import IGNORE
from fss.errors import UserError
from fss.heads import Panel
from fss.metrics import EpisodeScore, boundary_band, counts
from fss.model import FewShotModel
from fss.ops import foreground
from fss.runs import distributed
from fss.testing.features import (
    FeatureStore,
    FrozenEncoding,
    Ready,
    Supports,
    WholeEncoding,
    encode_now,
)

# (run, number in the run, draw, prediction (S,S) at network size, IoU in percent, the head's explanation)
OnEpisode = Callable[[int, int, Draw, Tensor, float, list[Panel]], None]


class Answer(NamedTuple):
    """The answer to a batch of B episodes; fields as of `fss.heads.HeadOutput`."""

    logits: Tensor  # (B,2,h,w), on any device
    notes: dict[str, Tensor]
    panels: Sequence[Panel]


class Counted(NamedTuple):
    """One episode's counts: its run, its number in the run, and the foreground's pixels."""

    run: int
    number: int
    intersection: int
    union: int


SMALL = 0.1  # of a query's labelled pixels; an object below that is small


@dataclass
class Evaluation:
    """Counts of each run and of each episode, in order, and how many episodes the head made a note of.

    Attributes:
        parts: counts of all runs near the boundaries of the true masks ("boundary", `boundary_band`), and of
            episodes whose query shows a "small" object and a "large" one (`SMALL`).
    """

    runs: list[EpisodeScore] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    episodes: list[Counted] = field(default_factory=list)
    parts: dict[str, EpisodeScore] = field(default_factory=dict)

    @classmethod
    def of(cls, num_classes: int) -> "Evaluation":
        """Nothing counted yet."""
        return cls(parts={name: EpisodeScore(num_classes) for name in ("boundary", "small", "large")})

    def add(self, class_id: Tensor, prediction: Tensor, mask: Tensor) -> tuple[int, int]:
        """Count an episode of class (1,) in the last run: prediction and mask (H,W).

        Returns:
            intersection and union of the foreground, pixels.
        """
        inter, union = counts(prediction[None], mask[None])
        self.runs[-1].update(class_id, inter, union)
        known, there = int((mask != IGNORE).sum()), int((mask == 1).sum())
        self.parts["small" if there < SMALL * known else "large"].update(class_id, inter, union)
        near = torch.where(boundary_band(mask[None]), mask[None], IGNORE)
        self.parts["boundary"].update(class_id, *counts(prediction[None], near))
        return int(inter[0, 1]), int(union[0, 1])


def feature_store(
    model: FewShotModel, source: Source, config: Config, device: torch.device, frozen_only: bool = False,
    supports: Supports | None = None,
) -> FeatureStore:  # fmt: skip
    """A store for a model's images; with `frozen_only` the head's own encoding is left for later."""
    encoder = FrozenEncoding(model) if frozen_only else WholeEncoding(model)
    originals = not frozen_only and config.test.label_size == "original"
    pictures = PictureSet(source, Canvas.of(config.data), originals)
    return FeatureStore(pictures, encoder, device, config.cache_gib, config.data.workers, supports)


@torch.no_grad()
def evaluate(
    model: FewShotModel, store: FeatureStore, plans: Sequence[Sequence[Draw]], num_classes: int, batch: int,
    label_size: str = "network", on_episode: OnEpisode | None = None, explain: bool = False,
    title: str = "testing",
) -> Evaluation:  # fmt: skip
    """Score a model of ours.

    Args:
        store: of the model's whole encoding, or of the frozen features alone.
        batch: episodes at once; changes no number.
        explain: ask head and neck for maps that explain, and hand them to `on_episode`.

    All else as of `add_up`.
    """
    model.eval()

    def answer(ready: Ready) -> Answer:
        seen = ready.query_mask if model.head.sees_query_mask else None
        e = replace(ready.encoded, network=model.network, query_mask=seen)
        if isinstance(store.encoder, FrozenEncoding):
            e = encode_now(model.head, e)
        output = model.head(e)
        panels = model.head.explain(e) + _neck_panels(model, store, ready) if explain else ()
        return Answer(output.logits, output.notes, panels)

    return add_up(answer, store, plans, num_classes, batch, label_size, on_episode, title)


def add_up(
    answer: Callable[[Ready], Answer], store: FeatureStore, plans: Sequence[Sequence[Draw]], num_classes: int,
    batch: int, label_size: str = "network", on_episode: OnEpisode | None = None, title: str = "testing",
) -> Evaluation:  # fmt: skip
    """Run every episode of every plan once, shared out over processes, and add up the counts.

    Args:
        answer: called with each batch of episodes.
        plans: one per run.
        label_size: "network" scores at S x S, "original" at the label's own size.
        on_episode: called with each prediction, in the process that made it.

    Raises:
        UserError: an image or mask cannot be read, or logits are not finite.
    """
    out = Evaluation.of(num_classes)
    total = sum(len(plan) for plan in plans)
    bar = Bar(total=total, desc=title, unit="episode", disable=not distributed.is_main(), leave=False)
    canvas = store.pictures.canvas
    size = (canvas.size, canvas.size)
    for run, plan in enumerate(plans):
        out.runs.append(EpisodeScore(num_classes))
        shares = [(i, plan[i : i + batch]) for i in range(0, len(plan), batch)]
        mine = shares[distributed.rank() :: distributed.world()]
        for (first, _), ready in zip(mine, store.episodes(draws for _, draws in mine), strict=True):
            logits, notes, panels = answer(ready)
            if not logits.isfinite().all():
                names = {store.pictures.source.samples[i].name for d in ready.draws for i in d.images}
                raise UserError(f"logits are not finite in an episode of {', '.join(sorted(names))}")
            out.notes.update({k: int(v.sum()) for k, v in notes.items()})
            for i, (prediction, mask) in enumerate(_predictions(logits, ready, label_size, canvas)):
                counted = Counted(run, first + i, *out.add(ready.class_id[i : i + 1], prediction, mask))
                out.episodes.append(counted)
                if on_episode:
                    iou = 100 * counted.intersection / max(1, counted.union)
                    drawn = prediction
                    if label_size != "network":
                        drawn = foreground(logits[i : i + 1], size, ready.encoded.corners)[0]
                    on_episode(run, first + i, ready.draws[i], drawn, iou, [p.of(i) for p in panels])
            bar.update(len(ready.draws) * distributed.world())
    bar.close()
    for score in (*out.runs, *out.parts.values()):
        score.all_reduce(store.device)
    out.episodes, out.notes = _over_processes(out)
    return out


def _neck_panels(model: FewShotModel, store: FeatureStore, ready: Ready) -> list[Panel]:
    """The neck's panels of the queries, which are read once more for them."""
    pictures = [store.pictures.load(d.query) for d in ready.draws]
    return model.explain_neck(torch.stack([p.image for p in pictures]).to(store.device))


def _predictions(
    logits: Tensor, ready: Ready, label_size: str, canvas: Canvas
) -> Iterator[tuple[Tensor, Tensor]]:
    """Prediction and mask of each episode, both at the size that is scored."""
    if label_size == "network":
        masks: Sequence[Tensor] = list(ready.query_mask)
    else:
        masks = [canvas.framed(m) for m in ready.originals]
    for i, mask in enumerate(m.to(logits.device) for m in masks):
        size = (mask.shape[0], mask.shape[1])
        yield foreground(logits[i : i + 1], size, ready.encoded.corners)[0], mask


def _over_processes(out: Evaluation) -> tuple[list[Counted], Counter[str]]:
    """Episodes counted and notes taken by all processes, the episodes in the order of their plans."""
    parts = distributed.gather((out.episodes, dict(out.notes)))
    return sorted(c for each, _ in parts for c in each), sum((Counter(n) for _, n in parts), Counter())
