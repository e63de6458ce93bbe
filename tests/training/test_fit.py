"""Budget, learning rate, checkpoints, and going on after a stop."""

import json
import math
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fss.config import PseudoConfig, ScheduleConfig
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


def next_second():
    """TensorBoard reads its files in the order of the seconds in their names."""
    time.sleep(1.01 - time.time() % 1)


def curves(folder):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("stop", [2, 5, 13])
def test_curves_of_a_resumed_training_are_those_of_an_uninterrupted_one(tmp_path, stop):
    """After 13 steps the checkpoint is of step 10 and its validation, whose point must stay."""
    train(fit(tmp_path / "whole"))
    with pytest.raises(InterruptedError):
        train(fit(tmp_path / "cut"), stop_after=stop)
    next_second()
    train(fit(tmp_path / "cut"))
    wanted = curves(tmp_path / "whole")
    assert [step for step, _ in wanted["validation/miou"]] == [5, 10, 15, 20]
    assert curves(tmp_path / "cut") == wanted


def test_a_checkpoint_of_before_says_nothing_of_curves(tmp_path):
    with pytest.raises(InterruptedError):
        train(fit(tmp_path), stop_after=13)
    content = checkpoint.read(tmp_path / "last.pt")
    torch.save({k: v for k, v in content.items() if k not in ("events", "first")}, tmp_path / "last.pt")
    next_second()
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
    next_second()
    train(again)
    a, b = (checkpoint.read(tmp_path / n / "last.pt") for n in ("whole", "cut"))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert curves(tmp_path / "whole") == curves(tmp_path / "cut")
    (tmp_path / "cut/last.pt").unlink()
    with pytest.raises(UserError, match=r"last\.pt is missing"):
        fit(tmp_path / "cut")


def scored(folder, scores, **settings):
    """A run whose validations give these scores, one after another; all its checkpoints' steps are noted."""
    f, left = fit(folder, **settings), iter(scores)
    f.validate = lambda writer, step: next(left)
    return f


def test_the_best_checkpoint_is_of_the_highest_score_and_of_the_first_of_equals(tmp_path):
    train(scored(tmp_path, [1.0, 3.0, 3.0, math.nan]))
    best, last = (checkpoint.read(tmp_path / f"{n}.pt") for n in ("best", "last"))
    assert (best["step"], best["best"], last["step"], last["best"]) == (10, 3.0, 20, 3.0)
    train(scored(tmp_path / "nan", [math.nan, 0.5, math.nan, 0.4]))
    assert checkpoint.read(tmp_path / "nan/best.pt")["step"] == 10  # any score is better than none


@pytest.mark.parametrize(("look", "step"), [(True, 0), (False, 5)])
def test_the_start_is_a_candidate_where_it_is_looked_at(tmp_path, look, step):
    f = scored(tmp_path, [9.0, 1.0, 2.0, 3.0, 4.0])
    loss = lambda b: Losses({"loss": f.model(b).square().mean()}, torch.tensor(1.0))  # noqa: E731
    f.run(batches(0), loss, "toy", look_first=look)
    assert checkpoint.read(tmp_path / "best.pt")["step"] == step
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in log if "validation" in x] == [0, 5, 10, 15, 20][not look :]
    assert len([x for x in log if "lr" in x]) == 20 == f.budget.step and f.done


def test_a_step_that_passes_several_marks_is_validated_once(tmp_path):
    f = scored(tmp_path, [1.0, 2.0], epochs=0.2, validations=4)  # two steps for four marks
    train(f)
    assert f.validated == 4 and checkpoint.read(tmp_path / "last.pt")["step"] == 2


def test_parts_of_a_batch_count_by_their_weights(tmp_path):
    """Two parts of 1 and 3 pixels: the gradient and the logged losses are means over all four."""
    f = fit(tmp_path, accumulate=2, decay="constant", momentum=0, weight_decay=0, epochs=0.1, validations=1)
    (weight,) = f.model[2].weight.detach().clone()[None]
    x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
    parts = [(x[:1], 1.0), (x[1:], 3.0)]

    def step(part):
        value = f.model[2](part[0]).mean()
        return Losses({"a": value, "b": 2 * value}, torch.tensor(part[1]))

    values = [float(f.model[2](p[0]).detach()) for p in parts]
    losses = f._learn(parts, step, 0.5)
    mean = (values[0] + 3 * values[1]) / 4
    assert losses == {k: pytest.approx(n * mean, rel=1e-4) for k, n in (("a", 1), ("b", 2), ("total", 3))}
    wanted = weight - 0.1 * 3 * (x[0] + 3 * x[1]) / 4
    assert torch.allclose(f.model[2].weight.detach(), wanted, atol=1e-6)


def test_groups_learn_at_their_own_rates(tmp_path):
    torch.manual_seed(0)
    config = ScheduleConfig(epochs=1, lr=0.1, validations=1, momentum=0, weight_decay=0)
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)])
    groups = [{"params": [model[0].weight]}, {"params": [model[1].weight], "factor": 20.0}]
    f = Fit(model, config, 1, tmp_path, {"stage": "base"}, {}, lambda w, s: 1.0, CPU, 5, groups)
    before = [m.weight.detach().clone() for m in model]
    f._learn([0], lambda _: Losses({"x": sum(m.weight.sum() for m in model)}, torch.tensor(1.0)), 0.0)
    moved = [float((b - m.weight.detach()).mean()) for b, m in zip(before, model, strict=True)]
    assert moved == [pytest.approx(0.1), pytest.approx(2.0)]


def test_steps_between_validations_are_saved_when_the_last_save_is_old(tmp_path, monkeypatch):
    monkeypatch.setattr("fss.training.fit._SAVE_EVERY", -1)
    with pytest.raises(InterruptedError):
        train(fit(tmp_path), stop_after=3)
    assert (
        checkpoint.read(tmp_path / "last.pt")["step"]
        == checkpoint.read(tmp_path / "last-1.pt")["step"] + 1
        == 3
    )
    assert checkpoint.read(tmp_path / "best.pt")["step"] == 1  # never one without the other
    monkeypatch.setattr("fss.training.fit._SAVE_EVERY", 1e9)
    with pytest.raises(InterruptedError):
        train(fit(tmp_path / "seldom"), stop_after=3)
    assert not list((tmp_path / "seldom").glob("*.pt"))


def test_a_second_signal_stops_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    f = fit(tmp_path)

    def step(batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the second signal was not heard")

    with pytest.raises(KeyboardInterrupt):
        f.run(batches(0), step, "toy")
    assert not (tmp_path / "last.pt").exists() and signal.getsignal(signal.SIGINT) is before


def test_other_settings_are_refused_by_name_and_what_may_change_may(tmp_path):
    train(fit(tmp_path))
    assert fit(tmp_path, keep=5).done
    with pytest.raises(UserError, match=r"other settings: lr=0\.1 \(now 0\.2\)\. Repeat those .*output=DIR"):
        fit(tmp_path, lr=0.2)


def test_settings_that_came_later_count_at_their_defaults(tmp_path):
    train(fit(tmp_path))
    for name in ("last.pt", "best.pt"):
        content = torch.load(tmp_path / name, weights_only=True)
        del content["settings"]["accumulate"]
        torch.save(content, tmp_path / name)
    assert fit(tmp_path).done
    with pytest.raises(UserError, match=r"other settings: accumulate=1 \(now 2\)"):
        fit(tmp_path, accumulate=2)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    f = fit(tmp_path)
    with torch.no_grad():
        f.model[0].weight[0, 0] = math.inf
    with pytest.raises(UserError, match="parameters are not finite at step 0"):
        f.save("last.pt")
    assert not (tmp_path / "last.pt").exists()
    f.model[0].weight.requires_grad_(False)  # what does not learn is as it was given
    f.save("last.pt")


def test_what_a_kill_left_half_written_goes_and_the_clock_is_not_charged_for_validating(tmp_path):
    (tmp_path / ".last.pt.123.part").write_text("half")
    f = fit(tmp_path)
    f.validate = lambda writer, step: time.sleep(0.2) or 1.0
    train(f)
    assert not list(tmp_path.glob(".*.part"))
    kept = checkpoint.read(tmp_path / "last.pt")
    assert kept["facts"]["steps"] == 20 and kept["facts"]["seconds"] == round(kept["spent"], 1)
    assert f.budget.spent < 0.6  # four validations took 0.8 s


def test_all_processes_stop_where_one_has_used_up_its_time(tmp_path, monkeypatch):
    """Progress is agreed upon: the furthest one's counts."""
    f = fit(tmp_path)
    monkeypatch.setattr("fss.runs.distributed.agree", lambda progress, device: 1.0)
    train(f)
    assert f.done and f.budget.step == 0


def test_settings_are_kept_as_plain_values_and_are_the_same_when_read_again(tmp_path):
    config = PseudoConfig(epochs=1, validations=1, saliency=tmp_path / "maps")  # pairs and paths among them
    make = lambda: Fit(nn.Linear(1, 1), config, 1, tmp_path, {"stage": "pseudo"}, {}, lambda *_: 1.0, CPU, 5)  # noqa: E731
    f = make()
    f.save("best.pt")
    f.save("last.pt")
    kept = checkpoint.read(tmp_path / "last.pt")["settings"]
    assert json.loads(json.dumps(kept)) == kept and kept["saliency"] == str(tmp_path / "maps")
    assert not make().done  # and no other settings are found


def test_a_new_run_begins_a_new_log_and_tells_each_validation(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 99, "validation": 1.0}\n' * 3
    )  # of a run without checkpoint
    train(scored(tmp_path, [1.0, 2.5], validations=2))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(log) == 20 + 2 and log[0]["step"] == 0
    assert "step 10: validation mIoU 1.00\n  step 20: validation mIoU 2.50\n" in capsys.readouterr().out


def test_processes_that_are_not_the_first_train_alike_and_write_nothing(tmp_path, monkeypatch):
    first, other = fit(tmp_path / "first"), fit(tmp_path / "other")
    train(first)
    monkeypatch.setattr("fss.runs.distributed.is_main", lambda: False)
    train(other)
    assert other.done and not (tmp_path / "other").exists()
    weights, same = (f.model.state_dict() for f in (first, other))
    assert all(torch.equal(weights[k], same[k]) for k in weights)
