"""Training on episodes: a head learns from episodes of base classes, on a frozen network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.episodes import EpisodeSet
from fss.data.folds import split_base
from fss.data.loading import load_batches
from fss.data.plan import Draw, Planner
from fss.data.source import Source, open_source
from fss.episode import Episode, collate
from fss.errors import UserError
from fss.heads import Head, HeadOutput
from fss.model import FewShotModel, frozen_checksum
from fss.ops import loss_weight, segmentation_loss
from fss.randomness import seeded
from fss.runs import distributed
from fss.runs.folders import open_folder, train_folder
from fss.runs.identity import Identity
from fss.runs.models import load_network
from fss.testing.features import Ready, encode_now
from fss.testing.plans import planner_for
from fss.training.base import about_masks, refuse_other_domain
from fss.training.fit import Fit, Losses
from fss.training.prepared import store_for
from fss.training.validation import on_base, on_novel


def train(config: Config, device: torch.device, half: bool) -> Path | None:
    """Train a head, or go on with it, or find it done; returns its folder, None with nothing to learn.

    Raises:
        UserError: data or the base checkpoint is missing, or the folder holds another run.
    """
    refuse_other_domain(config)
    cache = config.output / "cache"
    base_side, val = (open_source(config.data, split, cache) for split in ("train", "select"))
    learnt, held_out = _classes(config, base_side)
    net = load_network(config, base_side)
    with seeded(config.seed + 1):
        model = net.model(config.head, half, config.train.shots)
    model = model.to(device).to(memory_format=torch.channels_last)
    if not model.head.learns:
        return None
    folder = train_folder(config)
    about = {
        **Identity.of_few_shot(config, base_side.base_names).account(net.told["backbone"]),
        "shots": config.train.shots,
        "seed": config.seed,
        "min_pixels": config.data.min_pixels,
        "small_classes": config.data.small_classes,
        "frozen_sha256": frozen_checksum(model),
        **about_masks(config, base_side),
    }
    facts = {
        "base": net.told,
        "batch": distributed.global_batch(config.train.batch, config.train.accumulate),
        "processes": distributed.world(),
        **({"validation_classes": [base_side.classes[c - 1] for c in held_out]} if held_out else {}),
    }
    planner = planner_for(
        config, base_side, learnt, config.train.shots, config.seed, True, config.train.sampling
    )
    per_epoch = _steps_per_epoch(config, planner)
    validate = (
        on_base(config, model, base_side, held_out, device)
        if held_out
        else on_novel(config, model, val, device)
    )
    fit = Fit(
        model, config.train, per_epoch, folder, about, facts, validate, device, config.seed,
        _groups(model.head),
    )  # fmt: skip
    if fit.done:
        return folder
    if distributed.is_main():
        open_folder(folder, config, device)
        print(f"{config.head.type}: {config.train.shots}-shot episodes, {fit.budget} -> {folder}")
    make = _cached if config.train.cache else _augmented
    batches, step = make(
        config, model, base_side, _chunks(planner, config, per_epoch, fit.budget.step), device
    )
    fit.run(batches, step, "episodes", look_first=True)
    return folder


def check_classes(config: Config) -> None:
    """`UserError` where `train.validation_classes` leave no base class to learn from."""
    if config.train.validation_classes:
        _classes(config, open_source(config.data, "train", config.output / "cache"))


def _groups(head: Head) -> list[dict[str, Any]] | None:
    """The head's own parameter groups, if it has any.

    Raises:
        UserError: a parameter that learns is in none of them, and would stay as it is without a word.
    """
    groups = head.groups()
    if groups is None:
        return None
    groups = [{**group, "params": list(group["params"])} for group in groups]
    given = {id(p) for group in groups for p in group["params"]}
    left = [name for name, p in head.named_parameters() if p.requires_grad and id(p) not in given]
    if left:
        raise UserError(f"head {type(head).__name__}: groups() leaves out {', '.join(left[:3])}")
    return groups


def _steps_per_epoch(config: Config, planner: Planner) -> int:
    episodes = config.train.episodes or len(planner.queries)
    return max(1, episodes // distributed.global_batch(config.train.batch, config.train.accumulate))


def _chunks(planner: Planner, config: Config, per_epoch: int, step: int) -> Iterator[list[Draw]]:
    """Endless shares of batches for this process, from batch number `step` on.

    Run e of the planner is epoch e. With `same_episodes` every epoch is run 0, in an order of its own.
    """
    batch = distributed.global_batch(config.train.batch, config.train.accumulate)
    again = config.train.same_episodes
    while True:
        epoch, place = divmod(step, per_epoch)
        numbers = list(range(place * batch, (place + 1) * batch))
        if again:
            # A third number salts the seed, so that the order shares no stream with the planner's.
            order = np.random.default_rng([config.seed, epoch, 2]).permutation(per_epoch * batch)
            numbers = order[numbers].tolist()
        for share in distributed.my_shares(numbers, config.train.accumulate):
            yield [planner.draw(0 if again else epoch, i) for i in share]
        step += 1


def _augmented(
    config: Config, model: FewShotModel, source: Source, chunks: Iterator[list[Draw]], device: torch.device
) -> tuple[Iterator[Episode], Any]:
    """Episodes read and augmented afresh, encoded as they come."""
    t = config.train
    data = EpisodeSet(source, Canvas.of(config.data), t.augment, t.scale)
    network = distributed.parallel(_FromImages(model), device)

    def step(episode: Episode) -> Losses:
        e = episode.to(device)
        assert e.query_mask is not None
        return _losses(model, network(e), e.query_mask, lambda: _names(source, e.meta["draw"]))

    return load_batches(data, chunks, collate, config.data.workers), step


def _cached(
    config: Config, model: FewShotModel, source: Source, chunks: Iterator[list[Draw]], device: torch.device
) -> tuple[Iterator[Ready], Any]:
    """Episodes of un-augmented images, whose frozen features are kept."""
    store = store_for(config, model, source, device)
    network = distributed.parallel(_FromFeatures(model), device)

    def step(ready: Ready) -> Losses:
        return _losses(model, network(ready), ready.query_mask, lambda: _names(source, ready.draws))

    return store.episodes(chunks), step


class _FromImages(nn.Module):
    """A model on whole episodes, whose call gives the losses too."""

    def __init__(self, model: FewShotModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, e: Episode) -> HeadOutput:
        return self.model.output(e, [draw.seed for draw in e.meta["draw"]], training=True)


class _FromFeatures(nn.Module):
    """A head on frozen features, its own encoding inside `forward`: its gradients are averaged too."""

    def __init__(self, model: FewShotModel) -> None:
        super().__init__()
        self.head, self.extract = model.head, model.extract

    def forward(self, ready: Ready) -> HeadOutput:
        episodes = replace(ready.encoded, query_mask=ready.query_mask, network=self.extract)
        return cast(HeadOutput, self.head(encode_now(self.head, episodes)))


def _losses(
    model: FewShotModel, output: HeadOutput, mask: torch.Tensor, names: Callable[[], Sequence[str]]
) -> Losses:
    balanced = model.head.balanced_loss
    query = segmentation_loss(output.logits, mask, balanced, model.corners)
    return Losses({"query": query, **output.losses}, loss_weight(mask, balanced), names)


def _names(source: Source, draws: Sequence[Draw]) -> list[str]:
    return [source.samples[i].name for d in draws for i in d.images]


def _classes(config: Config, source: Source) -> tuple[list[int], list[int]]:
    """Base classes to learn from, and base classes to validate on (`train.validation_classes`)."""
    try:
        return split_base(source.base, config.train.validation_classes, config.seed)
    except ValueError as error:
        raise UserError(f"train.{error}") from None
