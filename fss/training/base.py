"""Base training: an ordinary segmentation network learns the base classes; few-shot heads stand on it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fss.backbones.base import check_size
from fss.backbones.frozen import checksum
from fss.bars import Bar
from fss.config import Config, PretrainConfig
from fss.data.labelled import Labelled, LabelledSet, epoch_batches, stack
from fss.data.loading import load_batches
from fss.data.source import Source, open_source
from fss.episode import IGNORE
from fss.errors import UserError
from fss.metrics import boundary_band, confusion, mean_iou
from fss.model import BaseSegmenter, build_base
from fss.ops import resize
from fss.randomness import seeded
from fss.runs import checkpoint, distributed
from fss.runs.folders import base_folder, open_folder
from fss.runs.identity import Identity
from fss.runs.models import empty_base
from fss.training.fit import Fit, Losses


def _training(config: Config, source: Source) -> dict[str, Any]:
    """The settings that must be the same to go on with base training, beside its identity."""
    return {
        "seed": config.seed,
        "weights": config.backbone.weights,
        "train_list_sha256": source.checksum,
        **about_masks(config, source),
    }


def about_masks(config: Config, source: Source) -> dict[str, Any]:
    """The checksum of the masks that training reads, if those are not the true ones."""
    return {} if config.data.masks_name is None else {"train_masks_sha256": source.counts_checksum}


def refuse_other_domain(config: Config) -> None:
    """`UserError` for settings of a cross-domain test, which say nothing of training."""
    data = config.data
    if data.trained_on:
        raise UserError(
            f"{data.name} is for testing what was trained on {data.trained_on}; train there: "
            f"fss train --data {data.trained_on} --fold {max(data.fold, 0)} --layers {config.backbone.type} "
            f"--shots {config.train.shots} --head {config.head.type}"
        )


def require_base_classes(config: Config) -> None:
    """`UserError` for a fold without classes to train on."""
    if config.data.fold < 0 or (config.data.folds < 2 and config.data.layout != "fss1000"):
        raise UserError(
            f"data.fold={config.data.fold} of {config.data.folds} has no base classes to train on: a fold is "
            "trained on some classes and tested on others. Take data.folds of 2 or more, and a fold from 0 "
            "on; for photos of one class, `fss predict` needs no training"
        )


def _open(config: Config) -> tuple[Source, Source]:
    """The training and the test split, fit for base training."""
    require_base_classes(config)
    cache = config.output / "cache"
    train, val = (open_source(config.data.for_base, split, cache) for split in ("train", "val"))
    if not len(train.base) < IGNORE:
        raise UserError(
            f"{config.data.name} has {len(train.base)} base classes; base training learns 1 to 254. "
            "Take a head that stands on weights as they come (network=weights)"
        )
    if len(train.samples) < 2:
        raise UserError(
            f"{config.data.train_list} lists one image; batch norms need two or more to learn from"
        )
    return train, val


def pretrain(config: Config, device: torch.device, half: bool) -> Path:
    """Train the base network, or go on with it, or find it done; returns its folder.

    A budget of zero leaves the network random and only sets its norms' statistics: the baseline that
    tells what base-class training is worth.

    Raises:
        UserError: data or backbone weights are missing, or the folder holds another run.
    """
    refuse_other_domain(config)
    if config.network != "base":
        raise UserError(
            f"network={config.network} means that there is no base network to train; allowed: base"
        )
    train, val = _open(config)
    folder = base_folder(config)
    with seeded(config.seed):
        model = _fresh_or_empty(config, folder, len(train.base))
    model = model.to(device).to(memory_format=torch.channels_last)
    check_size(model.backbone, config.base_size)
    check_size(model.backbone, config.pretrain.crop or config.base_size, "pretrain.crop")
    about = Identity.of_base(config, train.base_names).account(model.backbone.settled())

    data = LabelledSet(train, config.base_size, config.pretrain, config.seed)
    accumulate = config.pretrain.accumulate
    batch = distributed.global_batch(min(config.pretrain.batch, len(train.samples)), accumulate)
    per_epoch = max(1, len(train.samples) // batch)

    def validate(writer: SummaryWriter | None, step: int) -> float:
        scores = base_scores(model, val, config, device, half)
        known = not math.isnan(scores.boundary)
        fit.facts["base_boundary_miou"] = scores.boundary if known else None  # the next checkpoint carries it
        if writer and known:
            writer.add_scalar("validation/boundary_miou", scores.boundary, step)
        return scores.miou

    facts = {
        "backbone_sha256": checksum(model.backbone),
        "published_train_list": train.published,
        "precision": "bf16" if half else "fp32",
        "batch": batch,
        "processes": distributed.world(),
    }
    about |= _training(config, train)
    fit = Fit(
        model, config.pretrain, per_epoch, folder, about, facts, validate, device, config.seed,
        _groups(model, config.pretrain.backbone_factor),
    )  # fmt: skip
    if fit.done:
        return folder
    if distributed.is_main():
        open_folder(folder, config, device)
        what = f"{len(train.base)} base classes, {len(train.samples)} images"
        print(f"base training: {what}, {fit.budget} -> {folder}")
    keys = epoch_batches(len(train.samples), batch, config.seed, fit.budget.step)
    mine = (share for k in keys for share in distributed.my_shares(k, accumulate))
    batches = load_batches(data, mine, stack, config.data.workers)
    if fit.budget.progress >= 1 and fit.budget.step == 0:
        with seeded(config.seed):
            _calibrate(model, batches, device, half)
    fit.run(batches, _step(model, train, config, device, half), "base classes")
    return folder


def _groups(model: BaseSegmenter, factor: float) -> list[dict[str, Any]] | None:
    """The optimiser's groups; None where the backbone learns as fast as the rest."""
    if factor == 1:
        return None
    rest = [*model.neck.parameters(), *model.classifier.parameters(), *model.sides.parameters()]
    return [{"params": rest}, {"params": list(model.backbone.parameters()), "factor": factor}]


def _fresh_or_empty(config: Config, folder: Path, classes: int) -> BaseSegmenter:
    """The network with its backbone's weights; without them where a checkpoint is there to fill it."""
    if (folder / "last.pt").is_file():
        return empty_base(checkpoint.read(folder / "last.pt"), folder / "last.pt")
    return build_base(config, classes)


class _WithSides(nn.Module):
    """A network whose call gives the auxiliary classifiers' logits too."""

    def __init__(self, model: BaseSegmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.model.logits(images)


def _step(model: BaseSegmenter, source: Source, config: Config, device: torch.device, half: bool) -> Any:
    network = distributed.parallel(_WithSides(model), device)
    side, corners = model.neck.side_weight, model.backbone.corners

    def step(batch: Labelled) -> Losses:
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            every = network(images)
        losses = {}
        for name, logits in every.items():
            logits = resize(logits.float(), (labels.shape[-2], labels.shape[-1]), corners)
            loss = smoothed_loss(logits, labels, config.pretrain)
            losses[name] = loss if name == "base" else side * loss
        names = lambda: [source.samples[i].name for i in batch.positions.tolist()]  # noqa: E731
        return Losses(losses, (labels != IGNORE).sum().float(), names)

    return step


def smoothed_loss(logits: Tensor, labels: Tensor, config: PretrainConfig) -> Tensor:
    """Cross-entropy of logits (B,N,H,W), labels (B,H,W) smoothed as configured: mean over all but 255."""
    share, classes = config.label_smoothing, logits.shape[1]
    if config.smoothing == "others":  # PyTorch gives the true class its part of the share, too
        share *= classes / (classes - 1)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, label_smoothing=share)


@torch.no_grad()
def _calibrate(model: BaseSegmenter, batches: Iterator[Labelled], device: torch.device, half: bool) -> None:
    """Set an untrained network's norms' statistics to the data's own, averaged over 20 batches."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average
    model.train()
    for _ in Bar(range(20), "setting the norms' statistics", leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            model(next(batches).images.to(device))
    for norm in norms:
        norm.momentum = 0.1


class BaseScores(NamedTuple):
    """Mean IoU over the base classes, in percent: on whole images, and in the band of `boundary_band`."""

    miou: float
    boundary: float


@torch.inference_mode()
def base_scores(
    model: BaseSegmenter, source: Source, config: Config, device: torch.device, half: bool
) -> BaseScores:
    """Scores on the base classes seen in a split, counts summed over all its images.

    Images get the test resize; novel classes are background, and so is what is predicted on them.
    """
    n = len(source.base) + 1
    matrices = torch.zeros(2, n, n, dtype=torch.int64, device=device)
    data = LabelledSet(source, config.base_size, config.pretrain, 0)
    keys = [(-1, i) for i in range(len(source.samples))][distributed.rank() :: distributed.world()]
    batches = [keys[i : i + 8] for i in range(0, len(keys), 8)]
    loaded = load_batches(data, batches, stack, config.data.workers)
    for batch in Bar(loaded, "base classes", len(batches), leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = model(batch.images.to(device))
        labels = batch.labels.to(device)
        at = (labels.shape[-2], labels.shape[-1])
        prediction = resize(logits.float(), at, model.backbone.corners).argmax(1)
        for matrix, where in zip(matrices, (None, boundary_band(labels)), strict=True):
            matrix += confusion(prediction, labels, n, where)
    whole, band = distributed.sum_over_processes(matrices)
    return BaseScores(100 * mean_iou(whole), 100 * mean_iou(band))
