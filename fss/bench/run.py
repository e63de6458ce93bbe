"""`fss bench`: both ways of every case in turn, medians, ratios and memory."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from fss.bars import Bar
from fss.bench import record
from fss.bench.cases import METHODS, Pair, Setting, cached, encode, few_shot, loading, repri_updates
from fss.bench.memory import peak
from fss.bench.record import Times
from fss.errors import UserError
from fss.randomness import seeded
from fss.runs import distributed
from fss.runs.precision import wants_half

_AT_ONCE = 8  # units in one call of the cases that work in groups
IMAGES, EPISODES = 350, 5000  # of the published test of a fold: 5 runs of 1,000 episodes over its images


class Case(NamedTuple):
    """What is timed, and how many units a call of ours and of the plain way holds."""

    title: str
    make: Callable[[Setting], Any]  # a Pair, or a context that yields one
    ours: int = 1
    plain: int = 1


def _cases() -> Iterator[tuple[str, Case]]:
    for head, method in METHODS.items():
        batch = f", batch {method.batch}" if method.batch > 1 else ""
        ways = [(True, f"training step{batch}")] if method.learns else []
        for shots in (1, 5):
            for training, what in (*ways, (False, "test episode, nothing cached")):
                name = f"{head}_{'train' if training else 'test'}_{shots}shot"
                make = partial(few_shot, head=head, training=training, shots=shots)
                yield name, Case(f"{method.title} {what}, {shots} shot", make)
        kept = partial(cached, head=head, episodes=_AT_ONCE)
        yield f"{head}_cached_1shot", Case(f"{method.title} test episode, images cached", kept, _AT_ONCE)
        yield f"{head}_image", Case(f"{method.title} one image encoded", partial(encode, head=head))
    updates = partial(repri_updates, episodes=_AT_ONCE)
    yield "repri_updates_1shot", Case("RePRI updates alone, 1 shot", updates, _AT_ONCE)
    yield "load_episode", Case("loading one training episode", loading, _AT_ONCE, _AT_ONCE)


CASES = dict(_cases())
DEFAULT = [name for name in CASES if "5shot" not in name]


@seeded(0)  # of the dropout in training steps
def bench(setting: Setting, names: list[str], runs: int, compare: bool = True) -> Times:
    """Median seconds a unit of each case, ours and, with `compare`, the plain way, in turn; GiB a call.

    Raises:
        UserError: an unknown case, or no run.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown or runs < 1:
        raise UserError(f"unknown case {unknown[0]!r}; allowed: {', '.join(CASES)}" if unknown
                        else f"--runs {runs}: allowed are 1 and more")  # fmt: skip
    found = {}
    for name in Bar(names, "cases", leave=False):
        case = CASES[name]
        with ExitStack() as stack:
            made = case.make(setting)
            pair: Pair = stack.enter_context(nullcontext(made) if isinstance(made, Pair) else made)
            ways = {"ours": (pair.ours, case.ours)}
            if compare and pair.plain:
                ways["plain"] = (pair.plain, case.plain)
            took: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(runs + 1):
                for way, (call, units) in ways.items():
                    took[way].append(timed(call, setting) / units)
            found[name] = {way: median(each[1:]) for way, each in took.items()}  # the first one warms up
            found[name] |= {f"{way}_gib": peak(call, setting.device) for way, (call, _) in ways.items()}
    return found


def timed(step: Callable[[], object], setting: Setting) -> float:
    """Seconds of one call, to the end of what it started on the device."""
    wait = torch.cuda.synchronize if setting.device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def json_line(found: Times) -> str:
    """Median seconds of ours by case."""
    return json.dumps({name: round(times["ours"], 4) for name, times in found.items()})


def table(found: Times, setting: Setting, runs: int) -> str:
    """Markdown, with the sum that a published test of CWT comes to."""
    device = torch.cuda.get_device_name() if setting.device.type == "cuda" else "CPU"
    lines = [
        f"{setting.backbone}, {_size(setting)}, {device}, {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}, network in {'bfloat16' if setting.half else 'float32'}; medians of {runs} "
        "runs in turn",
        "", "| case | fss | plain float32 | ratio | memory | plain |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    rows = {CASES[name].title: times for name, times in found.items()}
    if {"cwt_image", "cwt_cached_1shot", "cwt_test_1shot"} <= found.keys():
        ours = IMAGES * found["cwt_image"]["ours"] + EPISODES * found["cwt_cached_1shot"]["ours"]
        plain = EPISODES * found["cwt_test_1shot"]["plain"]
        title = f"CWT published test of a fold, {EPISODES} episodes of {IMAGES} images (sum)"
        rows[title] = {"ours": ours, "plain": plain}
    for title, times in rows.items():
        by = times.get("plain")
        against = f"{_seconds(by)} | {by / times['ours']:.1f}" if by else " | "
        memory = f"{_memory(times, 'ours')} | {_memory(times, 'plain')}"
        lines.append(f"| {title} | {_seconds(times['ours'])} | {against} | {memory} |")
    return "\n".join(lines)


def _size(setting: Setting) -> str:
    return f"{setting.size} px" if setting.size else "each method's published size"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def _memory(times: dict[str, float], way: str) -> str:
    """Of a call, all of whose units are at work at once; nothing for what was not measured."""
    value = times.get(f"{way}_gib", float("nan"))
    return "" if math.isnan(value) else f"{value:.2f} GiB"


class Given(NamedTuple):
    """What `fss bench` was given; None where it was not."""

    names: Sequence[str] | None
    runs: int
    json: bool
    size: int | None
    backbone: str | None
    device: str
    precision: str | None
    out: Path | None
    check: Path | None


def run_bench(given: Given) -> bool:
    """Medians and ratios as a table, or medians of ours as one line of JSON, or ratios held against a record.

    Returns:
        False where a ratio fell.

    Raises:
        UserError: a size, case or number of runs that is not allowed, or a record that cannot be compared.
    """
    if given.size is not None and given.size < 33:
        raise UserError(f"--size {given.size}: allowed are 33 and more")
    chosen = distributed.start(given.device)
    if given.check:
        return _check(given, given.check, chosen)
    setting = Setting(
        given.size, given.backbone or "resnet50", chosen, wants_half(given.precision or "auto", chosen)
    )
    found = bench(
        setting, list(given.names or DEFAULT), given.runs, compare=bool(given.out) or not given.json
    )
    if given.out:
        record.write(given.out, found, setting, given.runs)
    print(json_line(found) if given.json else table(found, setting, given.runs))
    return True


def _check(given: Given, path: Path, device: torch.device) -> bool:
    """Ratios held against a record, at its size and on its network."""
    if any((given.size, given.backbone, given.precision, given.json, given.out)):
        raise UserError(
            "--check measures as its file was measured; leave out --size, --layers, --precision, --json "
            "and --out"
        )
    recorded = record.read(path)
    names = given.names or list(recorded.ratios)
    if unknown := [name for name in names if name not in recorded.ratios]:
        raise UserError(f"{path} has no case {unknown[0]!r}; it has: {', '.join(recorded.ratios)}")
    half = recorded.half and wants_half("auto", device)
    if half != recorded.half:
        raise UserError(
            f"{path} was measured in bfloat16, which this device lacks; its ratios say nothing here"
        )
    setting = Setting(recorded.size, recorded.backbone, device, half)
    chosen = recorded._replace(ratios={name: recorded.ratios[name] for name in names})
    return record.check(chosen, lambda some: bench(setting, some, given.runs), setting)
