"""Every measured table of README and docs, made from its files: `python studies/tables.py` writes them.

A table stands on its page between `<!-- measured: NAME -->` and `<!-- end -->`; NAME is in `TABLES`, whose
functions name the files. Numbers in running text are phrases (`PHRASES`), which their page must hold word by
word. `tests/test_numbers.py` holds the pages against both, and refuses other numbers with decimals.
"""

import re
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

import growth_plot
import heads_plot
import heads_tables
from measured import (
    FOLDS,
    ROOT,
    by_fold,
    commits,
    number,
    of_study,
    origin,
    results,
    row,
    study,
    table,
)  # fmt: skip

from fss.bench.run import CASES
from fss.metrics import interval95
from fss.report.results import Number, Result
from fss.report.table import console_table

_BLOCK = re.compile(r"(<!-- measured: (\S+) -->\n).*?(<!-- end -->)", re.S)


def pages() -> list[Path]:
    """The pages that may hold measured numbers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(text: str) -> str:
    """A page with all its measured tables as their files have them."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


# The tables.

HEADS = {
    "prototype": "prototype",
    "CWT without its transformer": "cwt_plain",
    "CWT": "cwt",
    "ASGNet, one prototype": "asgnet_one",
    "ASGNet": "asgnet",
}
BUILT = {
    "random backbone, norms' statistics set; plain inner loop": "random_plain",
    "random backbone, norms' statistics set; transformer, 60 s of episodes": "random_transformer",
    "trained 210 s; transformer as published, 60 s of episodes": "trained_published",
    "trained 210 s; transformer, 20 minutes of episodes": "trained_transformer_20min",
}
WEIGHTS = {
    "votes, ImageNet, installed with fss": "votes",
    "prototype, ImageNet, installed with fss": "prototype",
    "prototype, random": "prototype_random",
}


def shapes_means() -> str:
    lines = []
    for title, name in HEADS.items():
        means = [row(f"shapes_fold*_{name}_{k}shot").miou for k in (1, 5)]
        lines.append([title, *(f"{m.mean:.1f}" for m in means if m)])
    found = [r for name in HEADS.values() for r in results(f"shapes_fold*_{name}_[15]shot")]
    told = origin("docs/results/shapes_fold*_HEAD_*shot.json", commits(found))
    return table(["head", "1 shot", "5 shots"], lines) + f"\n\n{told}"


def shapes_console() -> str:
    (result,) = results("shapes_fold0_cwt_1shot")
    told = origin("docs/results/shapes_fold0_cwt_1shot.json", commits([result]))
    return f"```\n{console_table(result.modern)}\n```\n\n{told}"


def shapes_heads() -> str:
    every = [(title, k, f"shapes_fold*_{n}_{k}shot") for title, n in HEADS.items() for k in (1, 5)]
    lines = by_fold([([title, str(k)], row(name)) for title, k, name in every], with_interval=False)
    told = origin("docs/results/shapes_fold*_HEAD_*shot.json", commits(results(*(n for *_, n in every))))
    return table(["head", "shots", *FOLDS, "mean"], lines) + f"\n\n{told}"


def shapes_built() -> str:
    every = {title: f"shapes_fold*_{name}" for title, name in BUILT.items()}
    lines = by_fold([([title], row(name)) for title, name in every.items()], with_interval=False)
    told = origin("docs/results/shapes_fold*.json", commits(results(*every.values())))
    return table(["network; classifier", *FOLDS, "mean"], lines) + f"\n\n{told}"


def shapes_rates() -> str:
    every = [results(f"shapes_fold0_asgnet18_lr{name}_1shot")[0] for name in ("0025", "025")]
    assert len({(r.protocol["plan_sha256"], r.content["frozen_sha256"]) for r in every}) == 1
    lines = []
    for r in every:
        rate, scores = r.content["config"]["train"]["lr"], r.content["scores"]
        miou = number(Number(mean(r.runs), scores["interval"]))
        lines.append([str(rate), str(r.content["checkpoint"]["steps"]), miou, f"{scores['fb_iou']:.1f}"])
    told = origin("docs/results/shapes_fold0_asgnet18_lr*_1shot.json", commits(every))
    return table(["learning rate", "steps", "mIoU", "FB-IoU"], lines) + f"\n\n{told}"


def msrc_weights() -> str:
    every = {title: f"msrc_fold*_{name}_1shot" for title, name in WEIGHTS.items()}
    lines = by_fold([([title], row(_exact(name))) for title, name in every.items()])
    told = origin("docs/results/msrc_fold*_HEAD_1shot.json", commits(results(*map(_exact, every.values()))))
    return table(["head, weights", *FOLDS, "mean"], lines) + f"\n\n{told}"


def _exact(name: str) -> str:
    return name.replace("fold*", "fold[0-3]")


def msrc_votes() -> str:
    every = [(h, k, f"msrc_fold[0-3]_{h}_{k}shot") for k in (1, 5) for h in ("prototype", "votes")]
    lines = by_fold([([head, str(k)], row(name)) for head, k, name in every])
    told = origin("docs/results/msrc_fold*_HEAD_*shot.json", commits(results(*(n for *_, n in every))))
    return table(["head", "shots", *FOLDS, "mean"], lines) + f"\n\n{told}"


def other_sets() -> str:
    every = [
        (title, head, f"{name}_fold[0-3]_{head}{end}_1shot")
        for title, name, end in (("CamVid", "camvid", ""), ("`shapes`", "shapes", "_lite0"))
        for head in ("prototype", "votes")
    ]
    lines = by_fold([([title, head], row(name)) for title, head, name in every])
    found = results(*(name for *_, name in every))
    told = origin("docs/results/{camvid_*,shapes_*_lite0*}.json", commits(found))
    return table(["set", "head", *FOLDS, "mean"], lines) + f"\n\n{told}"


def half_precision() -> str:
    lines, files = [], []
    for head in ("prototype", "votes"):
        for title, end in (("float32", ""), ("bfloat16", "_bf16")):
            name = f"msrc_fold[0-3]_{head}{end}_1shot"
            one = row(name)
            files.append(name)
            lines.append([f"{head}, {title}", *(f"{one.folds[f].mean:.2f}" for f in range(4))])
    told = origin("docs/results/msrc_fold*_HEAD[_bf16]_1shot.json", commits(results(*files)))
    return table(["head, network in", *FOLDS], lines) + f"\n\n{told}"


def supports() -> str:
    true = results("msrc_fold0_votes_supports_mask_1shot")[0]
    every = results("msrc_fold0_votes_supports_*_1shot")
    assert len({r.protocol["plan_sha256"] for r in every}) == 1
    cells, lines = {_way(r): r for r in every}, []
    for way in [("", ""), *product(("scribble", "box", "points"), ("grabcut", "drawn"))]:
        one = cells[way]
        less = Number(*_paired(one, true)) if one is not cells["", ""] else None
        told = one.content.get("supports")
        lines.append([
            way[0] or "mask", way[1], f"{told['miou_with_truth']:.1f}" if told else "",
            number(Number(mean(one.runs), one.content["scores"]["interval"])), number(less),
        ])  # fmt: skip
    told = origin("docs/results/msrc_fold0_votes_supports_*.json", commits(every))
    return table(["supports", "masks by", "masks' IoU", "votes", "less true masks"], lines) + f"\n\n{told}"


def _way(result: Result) -> tuple[str, str]:
    support = result.protocol.get("support") or {"kind": "", "method": ""}
    return support["kind"], support["method"]


def _paired(one: Result, other: Result) -> tuple[float, float | None]:
    gains = [a - b for a, b in zip(one.runs, other.runs, strict=True)]
    return mean(gains), interval95(gains)


def photos() -> str:
    ways = study("photos_msrc")["ways"]
    lines = [
        [name, *(f"{mean(way['iou'][name]):.1f}" for way in ways.values())] for name in ways["default"]["iou"]
    ]
    lines.append(["**mean**", *(f"**{way['miou']:.1f}**" for way in ways.values())])
    names = ["fss predict" if n == "default" else n for n in ways]
    return table(["class", *names], lines) + f"\n\n{of_study('photos_msrc')}"


def speed() -> str:
    cases = {**study("speed")["cases"], **study("speed_later")["cases"]}
    lines = [[CASES[name].title, *_both(case), _gib(case, "plain"), _gib(case, "ours")]
             for name, case in cases.items()]  # fmt: skip
    fold = {way: sum(n * cases[c][way] for n, c in _FOLD[way]) for way in ("plain", "ours")}
    title = "CWT, published test of a fold (5 x 1,000 episodes, 350 images; a sum)"
    lines.append([title, *_both(fold), "", ""])
    heads = ["", "published", "fss", "ratio", "memory, published", "fss"]
    return table(heads, lines) + f"\n\n{of_study('speed', 'speed_later')}"


def _both(case: dict[str, float]) -> list[str]:
    """Seconds of both ways, and their ratio."""
    plain, ours = case["plain"], case["ours"]
    return [f"{x:,.0f} s" if x > 1000 else f"{x:.3f} s" for x in (plain, ours)] + [f"{plain / ours:.1f}"]


def _gib(case: dict[str, float], way: str) -> str:
    return f"{case[f'{way}_gib']:.2f} GiB"


_FOLD = {"plain": [(5000, "cwt_test_1shot")], "ours": [(350, "cwt_image"), (5000, "cwt_cached_1shot")]}


def necks() -> str:
    told = study("necks")
    costs = told["costs"]["shapes"]
    lines = [[n, f"{c['ms']:.1f}", f"{c['parameters_m']:.2f}"] for n, c in costs.items()]
    return table(["neck", "ms an image", "parameters, M"], lines) + f"\n\n{of_study('necks')}"


def pseudo() -> str:
    told = study("pseudo")
    every = told["masks"]
    cells = []
    for key in ("miou", "miou_with_background"):
        at = [next(r[key] for r in m["rows"] if r["background"] == 0.25) for m in every]
        cells.append(_over_seeds(at))
    best = [max(m["rows"], key=lambda r: r["miou"]) for m in every]
    where = ", ".join(sorted({f"{r['background']:.2f}" for r in best}))
    (steps,) = {m["steps"] for m in every}
    line = [str(len(every)), steps, *cells, where, _over_seeds([r["miou"] for r in best])]
    heads = ["seeds", "steps", "mIoU at background 0.25", "with background", "best threshold", "mIoU there"]
    return table(heads, [line]) + f"\n\n{of_study('pseudo')}"


def _over_seeds(values: list[float]) -> str:
    return number(Number(mean(values), interval95(values)))


def mutants() -> str:
    told = study("mutants")
    every = {**{f"`{module}`": part for module, part in told["modules"].items()}, "all": told["total"]}
    lines = [[name, *(str(p[k]) for k in ("possible", "made", "killed")), str(p["made"] - p["killed"])]
             for name, p in every.items()]  # fmt: skip
    where = origin("studies/results/mutants.json", [part["commit"] for part in told["modules"].values()])
    return table(["module", "possible faults", "made", "killed", "survivors"], lines) + f"\n\n{where}"


def choice(name: str) -> str:
    """Gain of each way to learn on held-out base classes: mean of groups, on the folds that have all ways."""
    ways: dict[str, dict[str, list[list[float]]]] = {}
    for key, gains in study(name)["gains"].items():
        way, fold, _ = key.rsplit(", ", 2)
        ways.setdefault(way, {}).setdefault(fold, []).append(gains)
    folds = sorted(set.intersection(*(set(groups) for groups in ways.values())))
    lines = []
    for way, groups in ways.items():
        by_fold = [[mean(x) for x in zip(*groups[f], strict=True)] for f in folds]
        by_shots = list(zip(*(gains for f in folds for gains in groups[f]), strict=True))
        pairs = [*by_fold, [mean(x) for x in by_shots], [min(x) for x in by_shots]]
        lines.append([way, *(" / ".join(f"{x:+.1f}" for x in pair).replace("-", "−") for pair in pairs)])
    heads = ["gain over the votes, 1 / 5 shots", *folds, "mean", "worst group"]
    return table(heads, lines) + f"\n\n{of_study(name)}"


def latency() -> str:
    """Seconds of `fss predict` to its first mask, of a further photo, and where eight are at work."""
    report = study("latency")
    one, many = report["photo_seconds"], report["at_once_seconds"]
    lines = [
        ["from the command typed to the first mask written", f"{report['cold_seconds']:.1f} s"],
        ["a further photo", f"{one:.3f} s"],
        [f"a photo of {report['at_once']} at once", f"{many:.3f} s, {one / many:.1f} times as fast"],
    ]
    return table(["", ""], lines) + f"\n\n{of_study('latency')}"


def processes() -> str:
    """What two processes and two nodes change: loss of a step, relative, and the test."""
    report = study("processes")
    lines = []
    for one in report["rows"]:
        tests = [one[f"{way}_episodes"] and one[f"{way}_miou"] == 0 for way in ("two", "nodes")]
        losses = [f"{one[f'{way}_loss']:.0e}" for way in ("two", "nodes")]
        lines.append([one["head"], *losses, "the same" if all(tests) else "differ"])
    heads = ["head", "two processes, loss", "two nodes, loss", "the test's scores"]
    return table(heads, lines) + f"\n\n{of_study('processes')}"


SETS = ("shapes", "msrc", "camvid")

TABLES: dict[str, Callable[[], str]] = {
    "shapes-means": shapes_means, "shapes-console": shapes_console, "shapes-heads": shapes_heads,
    "shapes-built": shapes_built, "shapes-rates": shapes_rates,
    "msrc-weights": msrc_weights, "msrc-votes": msrc_votes,
    "heads-shapes-longer": partial(heads_tables.longer, "shapes", "5epochs"),
    "heads-msrc-longer": partial(heads_tables.longer, "msrc", "longer"),
    "zoo-front": partial(heads_tables.front_on, "msrc"), "dcama-shots": heads_tables.dcama_shots,
    **{f"heads-{name}": partial(heads_tables.heads_on, name) for name in SETS},
    **{f"pairs-{name}": partial(heads_tables.pairs_on, name) for name in SETS},
    "other-sets": other_sets, "half-precision": half_precision, "supports": supports, "photos": photos,
    **{f"parts-{name}": partial(heads_tables.parts_on, name) for name in SETS},
    **{f"costs-{name}": partial(heads_tables.costs_on, name) for name in ("msrc",)},
    "decoder-choice": partial(choice, "decoder_choice"), "adapter-choice": partial(choice, "adapter_choice"),
    "growth": growth_plot.growth_table, "latency": latency, "processes": processes,
    "speed": speed, "necks": necks, "pseudo": pseudo, "mutants": mutants,
}  # fmt: skip

PLOTS = {"docs/zoo_msrc.svg": partial(heads_plot.svg, "msrc"), "docs/growth.svg": growth_plot.svg}


# Numbers in running text.


def _mean(name: str) -> float:
    one = row(name).miou
    assert one is not None
    return one.mean


def readme_text() -> list[str]:
    votes = [_mean(f"msrc_fold[0-3]_votes_{k}shot") for k in (1, 5)]
    average = [_mean(f"msrc_fold[0-3]_prototype_{k}shot") for k in (1, 5)]
    random = _mean("msrc_fold[0-3]_prototype_random_1shot")
    photos = study("photos_msrc")["ways"]["default"]["miou"]
    return [
        f"With three examples a class that gives {photos:.1f} mean IoU",
        f"scores {votes[0]:.1f} mIoU with one shot and {votes[1]:.1f} with five on 21 classes of everyday "
        f"photos, one prototype each {average[0]:.1f} and {average[1]:.1f}, random weights {random:.1f}",
    ]


def predict_text() -> list[str]:
    way = study("photos_msrc")["ways"]["default"]
    ious = [mean(v) for v in way["iou"].values()]
    return [
        f"gives {way['miou']:.1f} mean IoU with three supports a class, {min(ious):.0f} to "
        f"{max(ious):.0f} by class"
    ]


def _largest_move(head: str) -> float:
    pair = [row(f"msrc_fold[0-3]_{head}{end}_1shot").folds for end in ("", "_bf16")]
    return max(abs(pair[0][f].mean - pair[1][f].mean) for f in range(4))


def half_text() -> list[str]:
    return [f"by {max(_largest_move('votes'), _largest_move('prototype')):.2f} points at most"]


def index_text() -> list[str]:
    told = study("index")
    one, ours, again = told["seconds"].values()
    return [
        f"reading one after another with a pass per class {one:.1f} s, indexed {ours:.1f} s "
        f"({one / ours:.1f} times as fast), second start {again:.2f} s"
    ]


def votes_text() -> list[str]:
    rows = {k: v[0] for k, v in study("votes_choice")["rows"].items()}
    less = [rows[f"as chosen, {k} shots"] - rows[f"{what}, {k} shots"]
            for what in ("walk 0.0", "level {'stage3': 1.0, 'stage4': 1.0}") for k in (1, 5)]  # fmt: skip
    warmer = mean(rows[f"tau 0.025, {k} shots"] - rows[f"as chosen, {k} shots"] for k in (1, 5))
    odds = study("threshold_msrc")["ways"]["even odds"]["default_gains"]
    helps, hurts = (f"{100 * odds[k]:.0f}%" for k in ("helps_by_a_point", "hurts_by_a_point"))
    sizes = study("sizes_msrc")["ways"]
    ious = [sizes[name]["miou"] for name in ("257 px", "default", "385 px")]
    seconds = [sizes[name]["seconds_a_photo"] for name in ("257 px", "default", "385 px")]
    return [
        f"without the walk {less[0]:.1f} points less with one shot and {less[1]:.1f} with five; without "
        f"stage 2, {less[2]:.1f} and {less[3]:.1f}",
        f"but a temperature of 0.025, by {warmer:.1f}",
        f"over {odds['draws']} draws of three supports",
        f"{odds['mean_gain']:.2f} points; in {helps} of the draws it helps by a point or more, up to "
        f"{odds['best']:.1f}, in {hurts} it hurts, down to "
        f"{odds['worst']:.1f}".replace("-", "−"),
        f"257, 321 and 385 px give {ious[0]:.1f}, {ious[1]:.1f} and {ious[2]:.1f}, in {seconds[0]:.1f}, "
        f"{seconds[1]:.1f} and {seconds[2]:.1f} s a photo",
        *_cells_text(),
    ]


def _cells_text() -> list[str]:
    found = study("cells")["down_and_right_px"]
    theirs, ours = (
        [mean(found[way][s]) for s in ("stage3", "stage4")] for way in ("TensorFlow's padding", "fss")
    )
    return [
        f"{-theirs[0]:.0f} px in stage 3 and {-theirs[1]:.0f} px in stage 4",
        f"leaves {ours[0]:.0f} px down and right, and {-ours[1]:.0f} px up and left",
    ]


def zoo_text() -> list[str]:
    every = [r for folds in heads_tables.trainings("msrc", "votes_decoder", 1) for r in folds]
    seconds = [r.content["checkpoint"]["seconds"] for r in every]
    return [
        f"its {len(seconds)} checkpoints were reached after {min(seconds):.0f} to {max(seconds):.0f} seconds"
    ]


def clusters_text() -> list[str]:
    test = study("processes")["test"]
    one, two = test["one_seconds"], test["two_seconds"]
    return [
        f"A test of {test['episodes']:,} episodes of `votes` on `shapes` took {one:.0f} s with one process "
        f"of one thread and {two:.0f} s with two, {test['ratio']:.1f} times as fast"
    ]


PHRASES: dict[str, Callable[[], list[str]]] = {
    "README.md": readme_text,
    "docs/clusters.md": clusters_text,
    "docs/predict.md": predict_text,
    "docs/protocol.md": half_text,
    "docs/benchmarks.md": lambda: [*half_text(), *index_text()],
    "docs/votes.md": votes_text,
    "docs/zoo.md": zoo_text,
}


def main() -> None:
    """Write all tables and plots anew, and name the phrases that a page lacks."""
    for name, plot in PLOTS.items():
        (ROOT / name).write_text(plot(), encoding="utf-8")
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")
        plain = " ".join(new.split())
        for phrase in PHRASES.get(str(page.relative_to(ROOT)), list)():
            if phrase not in plain:
                print(f"{page.relative_to(ROOT)} lacks: {phrase}")


if __name__ == "__main__":
    main()
