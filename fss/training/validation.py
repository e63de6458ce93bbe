"""Validation of a head in training: mIoU on novel classes, as published, or on base classes held out."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from fss.config import Config
from fss.data.plan import Draw, Planner
from fss.data.source import Source
from fss.model import FewShotModel
from fss.pictures.overlay import episode_row
from fss.testing.evaluate import evaluate, feature_store
from fss.testing.features import FeatureStore
from fss.testing.plans import planner_for
from fss.training.fit import Validate
from fss.training.prepared import store_for

# The validation plan takes this seed's place, so that it shares no episode stream with the reported one.
VALIDATION_SEED = 1_000_003
_SHOWN = 4  # validation episodes drawn for TensorBoard


def on_novel(config: Config, model: FewShotModel, val: Source, device: torch.device) -> Validate:
    """mIoU on novel classes of the test images, as published, over a plan of its own."""
    t, seed = config.test, VALIDATION_SEED + config.test.seed
    planner = planner_for(config, val, val.novel, config.train.shots, seed, sampling=t.sampling)
    store = feature_store(model, val, config, device, frozen_only=True)
    return _scorer(config, model, store, [planner])


def on_base(
    config: Config, model: FewShotModel, source: Source, classes: list[int], device: torch.device
) -> Validate:
    """mIoU on base classes that training leaves out, on training images: mean of one shot and K shots."""
    seed = VALIDATION_SEED + config.seed
    planners = [
        planner_for(config, source, classes, shots, seed, sampling="class")
        for shots in sorted({1, config.train.shots})
    ]
    return _scorer(config, model, store_for(config, model, source, device), planners)


def _scorer(
    config: Config, model: FewShotModel, store: FeatureStore, planners: Sequence[Planner]
) -> Validate:
    """Mean of the mIoU over one plan of each planner."""
    plans = [planner.run(0, config.train.validation_episodes) for planner in planners]
    source, canvas = store.pictures.source, store.pictures.canvas

    def validate(writer: SummaryWriter | None, step: int) -> float:
        def show(run: int, number: int, draw: Draw, prediction: torch.Tensor, *_: Any) -> None:
            if writer and run == 0 and number < _SHOWN:
                picture = episode_row(source, canvas, draw, prediction)
                writer.add_image(f"validation/{number}", picture, step, dataformats="HWC")

        out = evaluate(
            model, store, plans, len(source.classes), config.test.batch, on_episode=show, title="validating"
        )
        return mean(run.compute().miou for run in out.runs)

    return validate
