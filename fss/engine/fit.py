"""The training loop that both stages share: batches in, checkpoints and curves out."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fss.config import ScheduleConfig
from fss.engine import checkpoint, distributed
from fss.engine.optim import Budget, build_optimizer, learning_rate
from fss.errors import UserError

Losses = dict[str, Tensor]
Validate = Callable[[SummaryWriter | None, int], float]


class Fit:
    """Trains `model` for a budget; keeps `last.pt` and `best.pt` in `folder`; goes on where it was stopped.

    Args:
        model: saved whole; its parameters with gradients learn.
        config: the schedule; a run can only be continued with the same.
        about: what the checkpoint says of itself; a run can only be continued with the same.
        facts: what it also tells, for results.
        validate: (writer or None, step) -> percent, higher is better.
        seed: of all randomness inside the network (dropout); step s uses a function of (seed, s).
    """

    def __init__(
        self, model: nn.Module, config: ScheduleConfig, steps_per_epoch: int, folder: Path,
        about: dict[str, Any], facts: dict[str, Any], validate: Validate, device: torch.device, seed: int,
    ) -> None:  # fmt: skip
        self.model, self.config, self.folder, self.about = model, config, folder, about
        self.facts, self.validate, self.device, self.seed = facts, validate, device, seed
        self.optimizer = build_optimizer(config, model.parameters())
        self.budget = Budget(config, steps_per_epoch)
        self.best, self.validated = -math.inf, 0
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
        if not path.is_file() or not best.is_file():
            gone = best if path.is_file() else path
            raise UserError(
                f"{gone} is missing beside the other; put it back, or delete {self.folder} to train anew"
            )
        content = checkpoint.read(path)
        checkpoint.require(content, self.about, path)
        self.facts = content["facts"]
        settings = self.config.model_dump(mode="json")
        differ = [
            f"{k}={content['settings'].get(k)} (now {v})"
            for k, v in settings.items()
            if content["settings"].get(k) != v
        ]
        if differ:
            raise UserError(
                f"{self.folder} was trained with other settings: {', '.join(differ)}. "
                f"Repeat those to use it, {_OTHERWISE[self.about['stage']]}, or delete it to train anew"
            )
        checkpoint.fill(self.model, content, path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.budget.step, self.budget.spent = content["step"], content["spent"]
        self.best, self.validated = content["best"], content["validated"]

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
            step: batch -> losses, which are summed.
            look_first: validate before the first step too, so that training can only gain on its start.

        Raises:
            UserError: the loss is not finite.
        """
        writer = SummaryWriter(str(self.folder / "tensorboard")) if distributed.is_main() else None
        bar = tqdm(total=100, desc=title, unit="%", disable=not distributed.is_main(), bar_format=_BAR)
        self.model.train()
        self.budget.start_clock()
        try:
            with _alone_in(self.folder), _Signals() as signals:
                if look_first and self.budget.step == 0 and self.best == -math.inf:
                    self._validate(0.0, writer)
                self._loop(batches, step, bar, writer, signals)
        finally:
            bar.close()
            if writer:
                writer.close()

    def _loop(
        self, batches: Iterator[Any], step: Callable[[Any], Losses], bar: Any,
        writer: SummaryWriter | None, signals: "_Signals",
    ) -> None:  # fmt: skip
        while not self.done:
            progress = distributed.agree(math.inf if signals.came else self.budget.progress, self.device)
            if progress == math.inf:  # all processes stop before the same step
                if distributed.is_main():
                    self._save_both()
                raise KeyboardInterrupt
            if progress >= (self.validated + 1) / self.config.validations:
                self._validate(progress, writer)
                continue
            losses = self._learn(next(batches), step, progress)
            self.budget.advance()
            self._save_now_and_then()
            bar.n = round(100 * self.budget.progress, 1)
            bar.set_postfix_str(f"step {self.budget.step}, loss {losses['total']:.3f}", refresh=False)
            bar.update(0)
            if writer and (self.budget.step % 10 == 1 or self.budget.step < 50):
                for name, value in losses.items():
                    writer.add_scalar(f"loss/{name}", value, self.budget.step)
                writer.add_scalar("lr", self.optimizer.param_groups[0]["lr"], self.budget.step)

    def _learn(self, batch: Any, step: Callable[[Any], Losses], progress: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, progress)
        torch.manual_seed((self.seed * 1_000_003 + self.budget.step) * 64 + distributed.rank())
        losses = step(batch)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise UserError(
                f"the loss is {float(total.detach())} at step {self.budget.step}; "
                f"the last good checkpoint, if it got so far, is {self.folder / 'last.pt'}. "
                "Lower the learning rate, or try precision=fp32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {**{k: float(v.detach()) for k, v in losses.items()}, "total": float(total.detach())}

    def _validate(self, progress: float, writer: SummaryWriter | None) -> None:
        # A step can jump over several marks; one look serves them all.
        self.validated = int(progress * self.config.validations + 1e-9)
        self.model.eval()
        score = self.validate(writer, self.budget.step)
        self.model.train()
        better = not self.best >= score  # not a number counts as worst
        self.best = score if better else self.best
        if writer:
            writer.add_scalar("validation/miou", score, self.budget.step)
        if distributed.is_main():
            tqdm.write(f"  step {self.budget.step}: validation mIoU {score:.2f}")
            # Best first: whoever finds `last.pt` complete must find `best.pt` too.
            if better or not (self.folder / "best.pt").is_file():
                self.save("best.pt")
            self.save("last.pt")
        distributed.barrier()
        self.budget.start_clock()

    def _save_now_and_then(self) -> None:
        """Keep at most ten minutes of work at risk, however far apart the validations are."""
        if distributed.is_main() and time.monotonic() - self.saved > _SAVE_EVERY:
            self._save_both()

    def _save_both(self) -> None:
        """Between validations: `last.pt`, and a first `best.pt`, since one never stands without the other."""
        if not (self.folder / "best.pt").is_file():
            self.save("best.pt")
        self.save("last.pt")

    def save(self, name: str) -> None:
        """Write a checkpoint that training can go on from."""
        checkpoint.save(
            self.folder / name, self.about, self.model, settings=self.config.model_dump(mode="json"),
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

    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is in use by another training; wait for it, or set tag= or output="
            ) from None
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


_OTHERWISE = {"base": "write elsewhere (output=DIR)", "few-shot": "give this one a name (tag=NAME)"}
_SAVE_EVERY = 600  # seconds
_BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
