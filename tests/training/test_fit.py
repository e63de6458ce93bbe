"""Budget, learning rate, checkpoints, and going on after a stop."""

import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fss.config import ScheduleConfig
from fss.errors import UserError
from fss.runs import checkpoint
from fss.training.fit import Fit, Losses
from fss.training.optim import Budget, learning_rate
from tests.make import unmoved

CPU = torch.device("cpu")


def fit(folder, **settings):
    torch.manual_seed(0)
    config = ScheduleConfig(**{"epochs": 2, "lr": 0.1, "validations": 4, "decay": "cosine", **settings})
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    return Fit(model, config, 10, folder, {"stage": "base"}, {}, lambda writer, step: 1.0, CPU, seed=5)


def batches(start):
    while True:
        yield torch.full((4, 3), start % 7 / 7)
        start += 1


def train(f, stop_after=None):
    def step(batch):
        if stop_after is not None and f.budget.step >= stop_after:
            raise InterruptedError
        return Losses({"loss": (f.model(batch) - 1).square().mean()}, torch.tensor(4.0))

    f.run(batches(f.budget.step), step, "toy")


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    whole = fit(tmp_path / "whole")
    train(whole)
    with pytest.raises(InterruptedError):
        train(fit(tmp_path / "cut"), stop_after=13)
    again = fit(tmp_path / "cut")
    assert again.budget.step == 10  # the last validation
    train(again)
    a, b = (checkpoint.read(tmp_path / n / "last.pt")["model"] for n in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert fit(tmp_path / "cut").done


def test_budget_ends_by_steps_or_seconds():
    budget = Budget(ScheduleConfig(epochs=2, seconds=1000), steps_per_epoch=5)
    for expected in range(1, 11):
        budget.advance()
        assert budget.progress == pytest.approx(expected / 10)
    budget.spent = 5000
    assert budget.progress == 1
    assert Budget(ScheduleConfig(epochs=None, seconds=0), 5).progress == 1


def test_learning_rates():
    cosine = ScheduleConfig(epochs=1, lr=2.0, decay="cosine", warmup=0.2)
    assert [learning_rate(cosine, p) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([1.0, 2.0, 1.0, 0.0])
    poly = ScheduleConfig(epochs=1, lr=2.0, decay="poly")
    assert learning_rate(poly, 0.5) == pytest.approx(2 * 0.5**0.9)


def test_infinite_loss_stops_with_the_last_good_checkpoint(tmp_path):
    f = fit(tmp_path)
    with pytest.raises(UserError, match=r"loss is nan at step 0, in a, b; .*last\.pt"):
        nan = lambda b: Losses({"loss": f.model(b).sum() * math.nan}, torch.tensor(1.0), lambda: ["a", "b"])  # noqa: E731
        f.run(batches(0), nan, "toy")


def write(path, stage):
    state = {
        "facts": {},
        "settings": {},
        "optimizer": {},
        "step": 0,
        "spent": 0.0,
        "best": 0.0,
        "validated": 0,
    }
    checkpoint.save(path, {"stage": stage}, nn.Linear(1, 1), **state)


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    write(path, "a")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        write(path, "b")
    assert checkpoint.read(path)["about"] == {"stage": "a"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.pt"]


def test_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="no checkpoint of fss"):
        checkpoint.read(tmp_path / "x.pt")


def test_two_trainings_cannot_share_a_folder(tmp_path):
    first, second = fit(tmp_path), fit(tmp_path)

    def step(batch):
        with pytest.raises(UserError, match="in use by another training"):
            train(second)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        first.run(batches(0), step, "toy")
    train(second)
    assert second.done


def test_one_checkpoint_without_the_other_is_refused(tmp_path):
    train(fit(tmp_path))
    (tmp_path / "best.pt").unlink()
    with pytest.raises(UserError, match=r"best\.pt is missing"):
        fit(tmp_path)


def test_sigterm_stops_between_steps_and_the_rest_equals_an_uninterrupted_run(tmp_path):
    whole = fit(tmp_path / "whole")
    train(whole)
    cut = fit(tmp_path / "cut")

    def step(batch):
        if cut.budget.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return Losses({"loss": (cut.model(batch) - 1).square().mean()}, torch.tensor(4.0))

    with pytest.raises(KeyboardInterrupt):
        cut.run(batches(0), step, "toy")
    again = fit(tmp_path / "cut")
    assert again.budget.step == 8  # the step during which the signal came was finished
    train(again)
    a, b = (checkpoint.read(tmp_path / n / "last.pt")["model"] for n in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def drawn(f, batches):
    """What each step draws, of torch, NumPy and Python, by the step's number."""
    found = {}

    def step(batch):
        found[f.budget.step] = (float(torch.rand(())), float(np.random.random()), random.random())
        return Losses({"loss": f.model(batch).sum()}, torch.tensor(4.0))

    f.run(batches, step, "toy")
    return found


def restless(start):
    """Batches whose loading draws now and then."""
    for i, batch in enumerate(batches(start)):
        if i % 3 == 1:
            torch.rand(i), np.random.random(i), random.random()
        yield batch


def test_every_step_draws_numbers_of_its_own_and_nothing_shifts_them(tmp_path):
    f = fit(tmp_path / "one")
    with unmoved():
        one = drawn(f, batches(0))
    assert sorted(one) == list(range(20))
    assert all(len(set(numbers)) == 20 for numbers in zip(*one.values(), strict=True))
    assert drawn(fit(tmp_path / "other"), restless(0)) == one
    third = fit(tmp_path / "third")
    third.seed += 1
    assert not {n for step in drawn(third, batches(0)).values() for n in step} & {
        n for step in one.values() for n in step
    }


def test_a_validation_that_draws_shifts_nothing(tmp_path):
    whole, cut = fit(tmp_path / "whole"), fit(tmp_path / "cut")
    whole.validate = cut.validate = lambda writer, step: float(torch.rand(()) + np.random.random())
    with unmoved():
        steps = drawn(whole, batches(0))
    torch.rand(3)
    drawn(cut, batches(0))
    assert steps == drawn(fit(tmp_path / "other"), batches(0))
    assert curves(tmp_path / "whole")["validation/miou"] == curves(tmp_path / "cut")["validation/miou"]


def curves(folder):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("stop", [2, 5, 13])
def test_curves_of_a_resumed_training_are_those_of_an_uninterrupted_one(tmp_path, stop):
    """After 13 steps the checkpoint is of step 10 and its validation, whose point must stay."""
    train(fit(tmp_path / "whole"))
    with pytest.raises(InterruptedError):
        train(fit(tmp_path / "cut"), stop_after=stop)
    train(fit(tmp_path / "cut"))
    wanted = curves(tmp_path / "whole")
    assert [step for step, _ in wanted["validation/miou"]] == [5, 10, 15, 20]
    assert curves(tmp_path / "cut") == wanted


def test_a_checkpoint_of_before_says_nothing_of_curves(tmp_path):
    with pytest.raises(InterruptedError):
        train(fit(tmp_path), stop_after=13)
    content = checkpoint.read(tmp_path / "last.pt")
    torch.save({k: v for k, v in content.items() if k not in ("events", "first")}, tmp_path / "last.pt")
    train(fit(tmp_path))
    assert [step for step, _ in curves(tmp_path)["loss/loss"]] == list(range(20))


def test_a_kill_between_the_two_files_of_the_first_save(tmp_path, monkeypatch):
    """`best.pt` alone is then all there is; a `last.pt` that someone took away later is asked for."""
    train(fit(tmp_path / "whole"))
    f, save = fit(tmp_path / "cut"), Fit.save

    def killed(self, name):
        if name == "last.pt":
            raise InterruptedError
        save(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "save", killed)
        with pytest.raises(InterruptedError):
            train(f)
    assert not (tmp_path / "cut/last.pt").exists()
    again = fit(tmp_path / "cut")
    assert again.budget.step == 5
    train(again)
    a, b = (checkpoint.read(tmp_path / n / "last.pt") for n in ("whole", "cut"))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert curves(tmp_path / "whole") == curves(tmp_path / "cut")
    (tmp_path / "cut/last.pt").unlink()
    with pytest.raises(UserError, match=r"last\.pt is missing"):
        fit(tmp_path / "cut")
