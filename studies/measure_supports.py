"""Every kind of support annotation, made into masks every way, tested on one plan.

    python studies/measure_supports.py OUT --data shapes --job 0:cwt:CWT.pt --job 0:asgnet:ASG.pt test.runs=3
    python studies/measure_supports.py --table OUT [OUT ...]

A job is FOLD:HEAD:CHECKPOINT (nothing after the second colon where the head learns nothing); further words
are settings. Tests that are done are passed over, so a stopped measurement goes on. --table prints Markdown
from what is there, with differences to true masks run by run.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from statistics import mean

from fss.cli import main as fss
from fss.metrics import interval95
from fss.report.results import Number, Result, read_results

WAYS = [("mask", "clustering"), *product(("scribble", "box", "points"), ("clustering", "grabcut", "drawn"))]


def measure(options: argparse.Namespace) -> None:
    """Run the tests that are not there yet, one kind of annotation after another."""
    ways = [way for way in WAYS if way[0] == "mask" or way[1] in options.by]
    for (kind, method), job in product(ways, options.job):
        fold, head, checkpoint = job.split(":", 2)
        done = options.out[0] / f".done_{fold}_{head}_{kind}_{method}"
        if done.exists():
            continue
        arguments = ["test", "--data", options.data, "--head", head, "--fold", fold]
        arguments += [x for name in options.config for x in ("--config", name)]
        arguments += ["--checkpoint", checkpoint] if checkpoint else []
        arguments += [f"test.support={kind}", f"test.support_by={method}", "test.checkpoint=best"]
        print(f"== fold {fold}, {head}, {kind} by {method}", flush=True)
        code = fss([*arguments, f"output={options.out[0]}", *options.settings])
        if code:
            sys.exit(code)
        done.touch()


def table(results: list[Result]) -> str:
    """A block for each data set and fold: a row a way, two columns a head."""
    lines: list[str] = []
    for data, fold in sorted({(r.protocol["data"], r.protocol["fold"]) for r in results}):
        own = [r for r in results if (r.protocol["data"], r.protocol["fold"]) == (data, fold)]
        p = own[0].protocol
        assert len({r.protocol["plan_sha256"] for r in own}) == 1, "episodes differ"
        heads = sorted({r.content["head"]["type"] for r in own})
        lines += [
            f"{data}, fold {fold}: {p['shots']} shot, {p['runs']} runs x {p['episodes']} episodes, seed "
            f"{p['seed']}, {p['image_size']} px, plan {p['plan_sha256'][:12]}",
            "",
            "| supports | masks by | masks' IoU | "
            + " | ".join(f"{h} | less true masks" for h in heads)
            + " |",
            "|---|---|---" + "|---|---" * len(heads) + "|",
        ]
        cells = {(*way(r), r.content["head"]["type"]): r for r in own}
        for kind, method in WAYS:
            method = "" if kind == "mask" else method
            found = [cells.get((kind, method, head)) for head in heads]
            if any(found):
                truth = [cells.get(("mask", "", head)) for head in heads]
                lines.append(row(kind, method, found, truth))
        lines.append("")
    return "\n".join(lines)


def way(result: Result) -> tuple[str, str]:
    """Annotation and method of a result."""
    support = result.protocol.get("support")
    return (support["kind"], support["method"]) if support else ("mask", "")


def row(kind: str, method: str, found: list[Result | None], truth: list[Result | None]) -> str:
    """The table's line for one way."""
    told = next(r for r in found if r).content.get("supports")
    cells = [kind, method, f"{told['miou_with_truth']:.1f}" if told else ""]
    for result, true in zip(found, truth, strict=True):
        cells.append(number(result.runs) if result else "")
        if result and true and result is not true:
            cells.append(number([a - b for a, b in zip(result.runs, true.runs, strict=True)], "+"))
        else:
            cells.append("")
    return f"| {' | '.join(cells)} |"


def number(values: list[float], sign: str = "") -> str:
    """A mean with its 95% interval."""
    n = Number(mean(values), interval95(values))
    return f"{n.mean:{sign}.1f}" + ("" if n.interval is None else f" ± {n.interval:.1f}")


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="*")
    parser.add_argument("--table", nargs="+", type=Path)
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--job", action="append", default=[], metavar="FOLD:HEAD:CHECKPOINT")
    methods = ["clustering", "grabcut", "drawn"]
    parser.add_argument("--by", nargs="+", default=methods, choices=methods, help="what makes masks")
    options, more = parser.parse_known_intermixed_args()
    if options.table:
        print(table(read_results([*options.table])))
        return
    words = [str(p) for p in options.out] + more
    options.settings = [w for w in words if "=" in w]
    options.out = [Path(w) for w in words if "=" not in w]
    if len(options.out) != 1 or not options.job:
        parser.error("name one OUT folder and at least one --job")
    options.out[0].mkdir(parents=True, exist_ok=True)
    measure(options)


if __name__ == "__main__":
    main()
