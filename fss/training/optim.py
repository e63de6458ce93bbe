"""Budget, learning rate and optimiser of a schedule."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from fss.config import ScheduleConfig


class Budget:
    """How far training is, from 0 to 1: by steps, by seconds, or by whichever ends first.

    Seconds count training alone, over all sittings; validation is not charged.
    """

    def __init__(self, config: ScheduleConfig, steps_per_epoch: int) -> None:
        epochs = config.epochs
        self.steps = None if epochs is None else math.ceil(epochs * steps_per_epoch)
        self.seconds = config.seconds
        self.step, self.spent = 0, 0.0
        self._since = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the budget that is used up; 1 at the end."""
        shares = [1.0 if total == 0 else used / total for used, total in self._both() if total is not None]
        return min(max(shares), 1.0)

    def _both(self) -> list[tuple[float, float | None]]:
        return [(self.step, self.steps), (self.spent, self.seconds)]

    def start_clock(self) -> None:
        """Begin (again) to charge time."""
        self._since = time.monotonic()

    def advance(self) -> None:
        """Charge one step and the time since the last one."""
        now = time.monotonic()
        self.step, self.spent, self._since = self.step + 1, self.spent + now - self._since, now

    def __str__(self) -> str:
        limits = [
            f"{self.steps} steps" if self.steps is not None else "",
            f"{self.seconds:g} s" if self.seconds else "",
        ]
        return " or ".join(x for x in limits if x) or "nothing"


def learning_rate(config: ScheduleConfig, progress: float) -> float:
    """The rate at a point of the budget: linear warm-up, then constant, cosine, polynomial (0.9), or a tenth
    from half of the budget on."""
    if progress < config.warmup:
        return config.lr * max(progress, 1e-3) / config.warmup
    left = (progress - config.warmup) / (1 - config.warmup)
    factor = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * left)) / 2,
        "poly": (1 - left) ** 0.9,
        "step": 1.0 if progress < 0.5 else 0.1,
    }
    return config.lr * factor[config.decay]


def build_optimizer(
    config: ScheduleConfig, parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that learn, or over groups of them."""
    learning: list[Any] = [p for p in parameters if isinstance(p, dict) or p.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        learning, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
    )
