"""Tables of heads against each other, from what `measure_heads.py` left in docs/results/heads."""

import json
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

from measured import FOLDS, RESULTS, commits, number, origin, table

from fss.metrics import interval95
from fss.report.results import Number, Result, read_results

METHODS = {
    "prototype": "prototype", "votes": "votes", "CWT": "cwt", "ASGNet": "asgnet", "PFENet": "pfenet",
    "HSNet": "hsnet", "RePRI": "repri", "BAM": "bam", "BAM's meta learner alone": "bam_meta",
    "HDMNet": "hdmnet", "DCAMA": "dcama", "INSID3": "insid3",
    "votes with a decoder": "votes_decoder",
}  # fmt: skip
SHOTS = (1, 5)
SHOTS_NAMED = ("1 shot", "5 shots")


@cache
def trainings(name: str, head: str, shots: int) -> list[list[Result]]:
    """A head's results on a set: a list of four folds a training, up to the first that lacks a fold."""
    complete = []
    for i in count():
        end = f"_training{i}" if i else ""
        paths = [RESULTS / f"heads/{name}_fold{f}_{head}{end}_{shots}shot.json" for f in range(4)]
        if not all(path.is_file() for path in paths):
            return complete
        complete.append(read_results(paths))
    return complete


def score(every: list[list[Result]]) -> Number:
    """Mean over folds, with the interval over trainings, or over the runs of a single one."""
    if len(every) > 1:
        means = [mean(_runs(folds)) for folds in every]
        return Number(mean(means), interval95(means))
    runs = _runs(every[0])
    return Number(mean(runs), interval95(runs))


def _runs(folds: list[Result]) -> list[float]:
    """Mean over folds, run by run."""
    return [mean(runs) for runs in zip(*(r.runs for r in folds), strict=True)]


def _scores(every: list[list[Result]]) -> list[str]:
    """Cells of a row: each fold's mean over trainings, and `score`."""
    folds = zip(*every, strict=True)
    return [*(f"{mean(mean(r.runs) for r in fold):.1f}" for fold in folds), number(score(every))]


def heads_on(name: str) -> str:
    """Every head, fold by fold, and how many steps its trainings took."""
    lines, every = [], []
    for shots in SHOTS:
        for title, head in METHODS.items():
            if not (own := trainings(name, head, shots)):
                continue
            every += [r for folds in own for r in folds]
            checkpoints = [r.content["checkpoint"] for r in own[0]]
            steps = ", ".join(str(c["steps"]) for c in checkpoints if c.get("stage") == "few-shot")
            lines.append([title, str(shots), *_scores(own), steps])
    _check_alike(every, name)
    below = origin(f"docs/results/heads/{name}_fold[0-3]_*.json", commits(every))
    return table(["head", "shots", *FOLDS, "mean", "steps"], lines) + f"\n\n{below}"


def _check_alike(every: list[Result], name: str) -> None:
    """`AssertionError` where heads of a table differ in `_conditions`."""
    firsts: dict[tuple[int, int], Result] = {}
    for result in every:
        first = firsts.setdefault((result.protocol["fold"], result.protocol["shots"]), result)
        assert _conditions(result, name) == _conditions(first, name), result.path


def _conditions(result: Result, name: str) -> tuple[str, str | None]:
    """Checksums of the episodes and, on `shapes`, of the network."""
    network = result.content["frozen_sha256"] if name == "shapes" else None
    return result.protocol["plan_sha256"], network


def row_of(name: str, head: str) -> str:
    """A head's row on a set, and its difference to every other one on the same episodes."""
    lines = []
    for shots in SHOTS:
        if not (own := trainings(name, head, shots)):
            return f"{head}: not yet on all four folds of {name}"
        lines.append([head, str(shots), *_scores(own)])
    others = []
    for title, other in METHODS.items():
        if other == head or not all(trainings(name, other, shots) for shots in SHOTS):
            continue
        alike = all(_alike(name, head, other, shots) for shots in SHOTS)
        differences = [_signed(_difference(name, head, other, shots)) for shots in SHOTS] if alike else []
        others.append([title, *(differences or ["other episodes or another network"] * len(SHOTS))])
    return "\n\n".join([
        table(["head", "shots", *FOLDS, "mean"], lines),
        table([f"{head} less", *SHOTS_NAMED], others),
    ])  # fmt: skip


def parts_on(name: str) -> str:
    """FB-IoU, and mIoU near boundaries, of small and of large objects: means of folds and trainings."""
    lines = []
    for shots in SHOTS:
        for title, head in METHODS.items():
            if own := trainings(name, head, shots):
                every = [[r.content["scores"] for r in folds] for folds in own]
                cells = [
                    _part(every, lambda s, key=key: s.get(key))  # type: ignore[misc]
                    for key in ("fb_iou", "boundary_miou", "small_miou", "large_miou")
                ]
                lines.append([title, str(shots), *cells])
    return table(["head", "shots", "FB-IoU", "boundary", "small", "large"], lines)


def _part(every: list[list[dict[str, Any]]], of: Callable[[dict[str, Any]], float | None]) -> str:
    """Mean over folds of a score, and over the trainings all of whose results have it."""
    found = [values for folds in every if None not in (values := [of(scores) for scores in folds])]
    return f"{mean(mean(values) for values in found):.1f}" if found else ""  # type: ignore[type-var]


def costs_on(name: str) -> str:
    """Costs of each head: parameters that learn, minutes of training, time of a test episode, memory."""
    study = json.loads((RESULTS / f"heads/costs_{name}.json").read_text(encoding="utf-8"))
    lines = []
    for title, head in METHODS.items():
        if not (costs := study["heads"].get(head)):
            continue
        spent = [
            r.content["checkpoint"].get("seconds", 0) / 60
            for folds in trainings(name, head, 1)
            for r in folds
            if r.content["checkpoint"].get("stage") == "few-shot"
        ]
        one, five = costs["1"], costs["5"]
        lines.append([
            title, f"{one['parameters']:,.0f}", f"{mean(spent):.1f}" if spent else "",
            *(f"{1000 * c[key]:.0f}" for c in (one, five) for key in ("fresh_seconds", "kept_seconds")),
            *(f"{1024 * one[key]:.0f}" if key in one else "" for key in ("test_gib", "train_gib")),
        ])  # fmt: skip
    heads = [
        "head", "learns", "minutes", "1 shot, ms", "photos kept", "5 shots, ms", "photos kept", "test, MiB",
        "training, MiB",
    ]  # fmt: skip
    below = origin(f"docs/results/heads/costs_{name}.json", [study["environment"]["commit"]])
    return table(heads, lines) + f"\n\n{below}"


def _alike(name: str, head: str, other: str, shots: int) -> bool:
    """Whether two heads have the same `_conditions` on every fold."""
    first, second = (trainings(name, h, shots)[0] for h in (head, other))
    return [_conditions(r, name) for r in first] == [_conditions(r, name) for r in second]


def front_on(name: str) -> str:
    """Every head's means with one shot and with five, the best first."""
    scored = {
        title: [score(trainings(name, head, shots)) for shots in SHOTS]
        for title, head in METHODS.items()
        if all(trainings(name, head, shots) for shots in SHOTS)
    }
    best_first = sorted(scored, key=lambda title: -scored[title][0].mean)
    lines = [[title, *map(number, scored[title])] for title in best_first]
    return table(["head", *SHOTS_NAMED], lines)


def pairs_on(name: str) -> str:
    """How far every head is below the best one, on the same episodes."""
    lines = []
    for title, head in METHODS.items():
        cells = [_less(name, head, shots) for shots in SHOTS]
        if all(cells):
            lines.append([title, *cells])
    return table(["less than the best head", *SHOTS_NAMED], lines)


def _less(name: str, head: str, shots: int) -> str:
    """The head's mean less that of the best one, with the interval of the paired differences."""
    every = {h: own for h in METHODS.values() if (own := trainings(name, h, shots))}
    if head not in every:
        return ""
    best = max(every, key=lambda h: score(every[h]).mean)
    if head == best:
        return "the best"
    return _signed(_difference(name, head, best, shots))


def _difference(name: str, head: str, other: str, shots: int) -> Number:
    """Mean of a head less that of another, with the interval of the paired differences: over trainings, or
    over the runs of a single one."""
    mine, theirs = trainings(name, head, shots), trainings(name, other, shots)
    # A head that learns nothing is tested once; its one result pairs with every training of the other.
    at = lambda own, i: _runs(own[min(i, len(own) - 1)])  # noqa: E731
    gains = [
        [a - b for a, b in zip(at(mine, i), at(theirs, i), strict=True)]
        for i in range(max(len(mine), len(theirs)))
    ]
    each = gains[0] if len(gains) == 1 else [mean(runs) for runs in gains]
    return Number(mean(each), interval95(each))


def _signed(value: Number) -> str:
    """With its sign."""
    return ("+" if value.mean > 0 else "") + number(value).replace("-", "−")


def _with_runs(result: Result) -> str:
    """A result's mean over runs, with its interval."""
    return number(Number(mean(result.runs), result.content["scores"]["interval"]))


def longer(name: str, end: str) -> str:
    """Heads that did not learn in the seconds of `heads_on`, and what they come to with more."""
    lines, every = [], []
    for title, head in METHODS.items():
        for path in sorted(RESULTS.glob(f"heads/{name}_fold*_{head}_{end}_1shot.json")):
            one, five = read_results([path, Path(str(path).replace("_1shot", "_5shot"))])
            every += [one, five]
            told = one.content["checkpoint"]
            steps = str(told["steps"]) + (f" in {told['seconds']:.0f} s" if end == "longer" else "")
            lines.append([title, str(one.protocol["fold"]), steps, _with_runs(one), _with_runs(five)])
    below = origin(f"docs/results/heads/{name}_*_{end}_*.json", commits(every))
    return table(["head", "fold", "steps", "1 shot", "5 shots"], lines) + f"\n\n{below}"


def dcama_shots() -> str:
    """DCAMA with both values of `head.shots`, after the same training."""
    titles = {"`largest`": "dcama_2epochs", "`mean`": "dcama_mean"}
    every = [
        read_results([RESULTS / f"heads/shapes_fold1_{head}_{k}shot.json" for k in SHOTS])
        for head in titles.values()
    ]
    lines = [[title, *map(_with_runs, pair)] for title, pair in zip(titles, every, strict=True)]
    names = "docs/results/heads/shapes_fold1_dcama_{2epochs,mean}_*.json"
    below = origin(names, commits(r for pair in every for r in pair))
    return table(["`head.shots`", "1 shot", "5 shots"], lines) + f"\n\n{below}"
