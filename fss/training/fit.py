"""The loop that base training and training on episodes share: batches in, checkpoints and curves out."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fss.bars import Bar
from fss.config import ScheduleConfig
from fss.errors import UserError
from fss.randomness import seeded
from fss.runs import checkpoint, distributed
from fss.runs.identity import require
from fss.training.curve import Curve
from fss.training.optim import Budget, build_optimizer, learning_rate

Validate = Callable[[SummaryWriter | None, int], float]


class Losses(NamedTuple):
    """The result of a step.

    Attributes:
        each: scalars, means over the batch, which are summed.
        weight: what this batch counts for in the mean over processes and accumulated parts: the
            pixels or episodes that its means are over.
        names: of the images, for messages.
    """

    each: dict[str, Tensor]
    weight: Tensor
    names: Callable[[], Sequence[str]] = tuple


class Fit:
    """Trains `model` for a budget; keeps `last.pt` and `best.pt` in `folder`; goes on where it was stopped.

    Args:
        model: saved whole; its parameters with gradients learn.
        config: the schedule; a run can only be continued with the same.
        about: what the checkpoint says of itself; a run can only be continued with the same.
        facts: what it also tells, for results.
        validate: (writer or None, step) -> percent, higher is better; `measure` is its name.
        seed: of all randomness inside the network (dropout); step s uses a function of (seed, s), and a
            validation one of its own, so that it does not matter whether it took place in this sitting.
        groups: the optimiser's, where not all parameters learn alike; "factor" multiplies the rate.
    """

    def __init__(
        self, model: nn.Module, config: ScheduleConfig, steps_per_epoch: int, folder: Path,
        about: dict[str, Any], facts: dict[str, Any], validate: Validate, device: torch.device, seed: int,
        groups: Sequence[dict[str, Any]] | None = None, measure: str = "mIoU",
    ) -> None:  # fmt: skip
        self.model, self.config, self.folder, self.about = model, config, folder, about
        self.facts, self.validate, self.device, self.seed = facts, validate, device, seed
        self.measure = measure
        self.optimizer = build_optimizer(config, groups or model.parameters())
        self.budget = Budget(config, steps_per_epoch)
        self.best, self.validated, self.lines = -math.inf, 0, 0
        self.events: dict[str, int] | None = {}
        self.curve: Curve | None = None
        self.saved = time.monotonic()
        self.resume()

    def resume(self) -> None:
        """Take up `last.pt`, if there is one, after checking that it is of the same run.

        Raises:
            UserError: the checkpoint there was trained with other settings.
        """
        path, best = self.folder / "last.pt", self.folder / "best.pt"
        if not path.is_file() and not best.is_file():
            return
        if not path.is_file() and self._is_first(best):
            path = best  # killed between the two of its first save
        elif not path.is_file() or not best.is_file():
            gone = best if path.is_file() else path
            raise UserError(
                f"{gone} is missing beside the other; put it back, or move {self.folder} away to train anew"
            )
        content = checkpoint.read(path)
        require(content["about"], self.about, str(path))
        self.facts = content["facts"]
        settings = self.config.model_dump(mode="json")
        # A setting that came after the checkpoint was at its default then.
        defaults = {k: to_jsonable_python(f.default) for k, f in type(self.config).model_fields.items()}
        there = defaults | content["settings"]
        differ = [
            f"{k}={there[k]} (now {v})" for k, v in settings.items() if there[k] != v and k not in _MAY_CHANGE
        ]
        if differ:
            raise UserError(
                f"{self.folder} was trained with other settings: {', '.join(differ)}. "
                f"Repeat those to use it, {_OTHERWISE[self.about['stage']]}, or move it away to train anew"
            )
        checkpoint.fill(self.model, content, path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.budget.step, self.budget.spent = content["step"], content["spent"]
        self.best, self.validated = content["best"], content["validated"]
        self.lines, self.events = content.get("lines", 0), content.get("events")

    def _is_first(self, best: Path) -> bool:
        """Whether a `best.pt` was written when there was no `last.pt` yet, nor was there one since."""
        later = checkpoint.before(self.folder / "last.pt", 1)
        return best.is_file() and not later.is_file() and checkpoint.read(best).get("first", False)

    @property
    def done(self) -> bool:
        """Whether the budget is used up and its end validated."""
        return self.validated >= self.config.validations

    def run(
        self, batches: Iterator[Any], step: Callable[[Any], Losses], title: str, look_first: bool = False
    ) -> None:
        """Train to the end of the budget.

        Args:
            batches: endless, beginning with number `budget.step`.
            step: batch -> losses.
            look_first: validate before the first step too, so that training can only gain on its start.

        Raises:
            UserError: a loss or a parameter is not finite.
        """
        bar = Bar(total=100, desc=title, unit="%", disable=not distributed.is_main(), bar_format=_BAR)
        self.model.train()
        self.budget.start_clock()
        try:
            with _alone_in(self.folder), _Signals() as signals:
                if distributed.is_main():
                    self.curve = Curve(self.folder, self.lines, self.budget.step, self.events)
                if look_first and self.budget.step == 0 and self.best == -math.inf:
                    self._validate(0.0)
                self._loop(batches, step, bar, signals)
        finally:
            bar.close()
            if self.curve:
                self.curve.close()

    def _loop(
        self, batches: Iterator[Any], step: Callable[[Any], Losses], bar: Any, signals: "_Signals"
    ) -> None:
        while not self.done:
            progress = distributed.agree(math.inf if signals.came else self.budget.progress, self.device)
            if progress == math.inf:  # all processes stop before the same step
                if distributed.is_main():
                    self._save_both()
                raise KeyboardInterrupt
            if progress >= (self.validated + 1) / self.config.validations:
                self._validate(progress)
                continue
            parts = [next(batches) for _ in range(self.config.accumulate)]
            with seeded((self.seed * 1_000_003 + self.budget.step) * 64 + distributed.rank()):
                losses = self._learn(parts, step, progress)
            if self.curve:
                self.curve.add_step(self.budget.step, losses, self.optimizer.param_groups[0]["lr"])
            self.budget.advance()
            self._save_now_and_then()
            bar.n = round(100 * self.budget.progress, 1)
            bar.set_postfix_str(f"step {self.budget.step}, loss {losses['total']:.3f}", refresh=False)
            bar.update(0)

    def _learn(
        self, parts: Sequence[Any], step: Callable[[Any], Losses], progress: float
    ) -> dict[str, float]:
        """One step of the optimiser: the mean over all parts of the batch in all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, progress) * group.get("factor", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        alone = self.config.accumulate == 1 and distributed.world() == 1
        sums: dict[str, Tensor] = {}
        for part in parts:
            losses = step(part)
            total = torch.stack(list(losses.each.values())).sum()
            self._check_finite(total, losses)
            (total if alone else total * losses.weight).backward()
            scaled = {k: v.detach() * losses.weight for k, v in {**losses.each, "total": total}.items()}
            scaled["weight"] = losses.weight.detach()
            sums = {k: v.double() + sums.get(k, 0) for k, v in scaled.items()}
        sums = {k: distributed.sum_over_processes(v) for k, v in sums.items()}
        weight = float(sums.pop("weight"))
        if not alone:
            self._scale_gradients(distributed.world() / max(weight, 1e-12))
        self.optimizer.step()
        return {k: float(v) / max(weight, 1e-12) for k, v in sums.items()}

    def _scale_gradients(self, factor: float) -> None:
        """The mean over everything, from sums that are averaged over processes."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _check_finite(self, total: Tensor, losses: Losses) -> None:
        if torch.isfinite(total):
            return
        names = list(losses.names())
        shown = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        raise UserError(
            f"the loss is {float(total.detach())} at step {self.budget.step}"
            f"{f', in {shown}' if names else ''}; {self._last_good()}"
        )

    def _last_good(self) -> str:
        return (
            f"the last good checkpoint, if it got so far, is {self.folder / 'last.pt'}. "
            "Lower the learning rate, or try precision=fp32"
        )

    def _validate(self, progress: float) -> None:
        # A step can pass several marks; one validation serves them all.
        self.validated = int(progress * self.config.validations + 1e-9)
        self.model.eval()
        with seeded(self.seed):
            score = self.validate(self.curve.writer if self.curve else None, self.budget.step)
        self.model.train()
        better = score > self.best or math.isnan(self.best)  # a score that is not a number never is
        self.best = score if better else self.best
        if self.curve:
            self.curve.add_validation(self.budget.step, score, self.measure)
        if distributed.is_main():
            Bar.write(f"  step {self.budget.step}: validation {self.measure} {score:.2f}")
            # `best.pt` is written first, so that a folder with a whole `last.pt` has a `best.pt` too.
            if better or not (self.folder / "best.pt").is_file():
                self.save("best.pt")
            self.save("last.pt")
        distributed.barrier()
        self.budget.start_clock()

    def _save_now_and_then(self) -> None:
        """Save if the last save is ten minutes old, however far apart the validations are."""
        if distributed.is_main() and time.monotonic() - self.saved > _SAVE_EVERY:
            self._save_both()

    def _save_both(self) -> None:
        """Save between validations: `last.pt`, and a first `best.pt`, which never stand alone."""
        if not (self.folder / "best.pt").is_file():
            self.save("best.pt")
        self.save("last.pt")

    def save(self, name: str) -> None:
        """Write a checkpoint that training can go on from; none with parameters that are not finite."""
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        if not all(bool(torch.isfinite(p).all()) for p in learnt):
            raise UserError(f"parameters are not finite at step {self.budget.step}; {self._last_good()}")
        if self.curve:
            self.events = self.curve.flush()
            self.lines = self.curve.lines
        checkpoint.save(
            self.folder / name, self.about, self.model, keep=self.config.keep if name == "last.pt" else 1,
            lines=self.lines, events=self.events, first=not (self.folder / "last.pt").is_file(),
            settings=self.config.model_dump(mode="json"),
            facts={**self.facts, "steps": self.budget.step, "seconds": round(self.budget.spent, 1)},
            optimizer=self.optimizer.state_dict(), step=self.budget.step, spent=self.budget.spent,
            best=self.best, validated=self.validated,
        )  # fmt: skip
        self.saved = time.monotonic()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder while training, so that two runs cannot overwrite each other."""
    if not distributed.is_main() or sys.platform == "win32":
        yield
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is in use by another training; wait for it, or set tag= or output="
            ) from None
        for half in folder.glob(".*.part"):  # parts that a run left which was killed while it saved
            half.unlink(missing_ok=True)
        yield


class _Signals:
    """While entered, Ctrl-C and SIGTERM ask for a stop between two steps; a second one stops at once."""

    came = False

    def __enter__(self) -> "_Signals":
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


_NAMED = "give this one a name (tag=NAME)"
_OTHERWISE = {"base": "write elsewhere (output=DIR)", "few-shot": _NAMED, "pseudo": _NAMED}
# These settings have no part in what is learned: checkpoints kept, sizes (what they come to is part of the
# account, which is compared), where labels lie (their checksums are compared), and how pseudo-masks are
# written once training is over.
_MAY_CHANGE = (
    "keep", "size", "labels", "saliency", "maps", "scales", "flips", "longest", "background", "pictures",
)  # fmt: skip
_SAVE_EVERY = 600  # seconds
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
