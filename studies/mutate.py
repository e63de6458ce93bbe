"""Small faults put into modules, one at a time: which does no test notice? docs/tests.md has the score.

Each goes into a copy of the checkout, where the module's own tests run in a fork. Linux or macOS.
"""

import argparse
import ast
import copy
import importlib
import itertools
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_ASGNET = """tests/heads/test_context.py tests/heads/test_asgnet.py tests/heads/test_options.py
    tests/test_contract.py
    -k 'test_asgnet or test_context or asgnet and options or published or asgnet-16 and by_one'"""
# Module -> what pytest is given: the tests that mirror it, and quick ones that stand on it.
TESTS = {
    "fss/metrics.py": "tests/test_metrics.py",
    "fss/ops.py": "tests/test_ops.py tests/data/test_transforms.py tests/heads/test_cwt.py",
    "fss/heads/base.py": "tests/heads/test_base.py",
    "fss/heads/cwt.py": "tests/heads/test_cwt.py tests/heads/test_options.py -k 'cwt or options or trainer'",
    "fss/heads/asgnet.py": _ASGNET,
    "fss/heads/context.py": _ASGNET,
    "fss/heads/seeds.py": "tests/heads/test_asgnet.py",
    "fss/heads/prototype.py": "tests/heads/test_prototype.py tests/heads/test_options.py",
    "fss/heads/votes.py": "tests/heads/test_votes.py tests/heads/test_options.py",
    "fss/heads/cells.py": "tests/heads/test_votes.py tests/heads/test_prototype.py",
    "fss/data/plan.py": "tests/data/test_plan.py",
    "fss/data/planfile.py": "tests/data/test_planfile.py -k 'not process and not existing'",
    "fss/data/classes.py": "tests/data/test_classes.py -k 'not not_trained'",
    "fss/data/transforms.py": "tests/data/test_transforms.py",
    "fss/data/index.py": "tests/data/test_index.py -k 'not 82000'",
    "fss/testing/evaluate.py": "tests/testing/test_evaluation.py tests/testing/test_api.py",
    "fss/testing/features.py": """tests/testing/test_features.py tests/heads/test_asks.py
        -k 'features or one_store or given'""",
    "fss/training/fit.py": "tests/training/test_fit.py",
    "fss/photos/annotations.py": """tests/photos/test_annotations.py tests/photos/test_predict.py
        -k 'annotations or wrong'""",
    "fss/photos/prediction.py": "tests/photos/test_prediction.py",
}
_COMPARED = {
    "Lt": ("LtE", "GtE"), "LtE": ("Lt", "Gt"), "Gt": ("GtE", "LtE"), "GtE": ("Gt", "Lt"), "Eq": ("NotEq",),
    "NotEq": ("Eq",), "Is": ("IsNot",), "IsNot": ("Is",), "In": ("NotIn",), "NotIn": ("In",),
}  # fmt: skip
_COMPUTED = {
    "Add": ("Sub",), "Sub": ("Add",), "Mult": ("Div",), "Div": ("Mult",), "FloorDiv": ("Mult",),
    "Mod": ("Mult",), "Pow": ("Mult",), "BitAnd": ("BitOr",),
}  # fmt: skip
_PAIRS = "min max sum mean amin amax argmin argmax any all zeros ones minimum maximum zeros_like ones_like"
_CALLED = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))
_CALLED |= {b: a for a, b in _CALLED.items()}
_UNTOUCHED = {"annotation", "returns", "decorator_list", "bases"}


class Fault(NamedTuple):
    """A change of one place of a module: its line, the lines before and after, and the whole text after."""

    line: int
    before: str
    after: str
    text: str


def edits(node: Any) -> Iterator[tuple[Any, str]]:
    """Faults that a node can be given: the part of it that is replaced, and by what."""
    text, swapped = (
        ast.unparse,
        lambda old, table: [getattr(ast, n)() for n in table.get(type(old).__name__, ())],
    )
    if isinstance(node, ast.Compare):
        for i, old in enumerate(node.ops):
            for op in swapped(old, _COMPARED):
                ops = [*node.ops[:i], op, *node.ops[i + 1 :]]
                yield node, f"({text(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BinOp):
        for op in swapped(node.op, _COMPUTED):
            yield node, f"({text(ast.BinOp(node.left, op, node.right))})"
    elif isinstance(node, ast.UnaryOp):
        yield node, f"({text(node.operand)})"
    elif isinstance(node, ast.BoolOp):
        yield (
            node,
            f"({text(ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values))})",
        )
    elif isinstance(node, ast.IfExp):
        yield from ((node, f"({text(side)})") for side in (node.body, node.orelse))
    elif isinstance(node, ast.If):
        yield from ((node.test, always) for always in ("False", "True"))
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        old = node.value
        others = {bool: [not old], float: [2 * old or 1.0]}.get(type(old), [old + 1, old - 1])
        yield from ((node, f"({new})" if new < 0 else str(new)) for new in others)
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            yield node, text(ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword]))
        name = "id" if isinstance(node.func, ast.Name) else "attr"
        if (called := getattr(node.func, name, None)) in _CALLED:
            other = copy.copy(node.func)
            setattr(other, name, _CALLED[called])
            yield node, text(ast.Call(other, node.args, node.keywords))
    elif isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Expr) or (
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    ):
        yield node, "pass"


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes whose change would be one of behaviour: no annotation, message, decorator or docstring."""
    yield node
    if isinstance(node, ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            passed = isinstance(child, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom)
            said = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and name not in _UNTOUCHED and not passed and not said:
                yield from nodes(child)


def faults(text: str) -> list[Fault]:
    """Every fault that a module's source can be given, in the order of its lines."""
    source = text.encode()
    starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    found = {}
    for node in nodes(ast.parse(text)):
        for place, new in edits(node):
            begin = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            first, last = starts[place.lineno - 1], starts[place.end_lineno]
            before = source[first:last].decode()
            after = (source[first:begin] + new.encode() + source[end:last]).decode()
            whole = (source[:first] + after.encode() + source[last:]).decode()
            found[whole] = Fault(place.lineno, *(" ".join(x.split()) for x in (before, after)), whole)
    return sorted((f for f in found.values() if f.text != text), key=lambda f: (f.line, f.after))


def run(tree: Path, arguments: list[str], seconds: float) -> str:
    """How pytest ends in a tree, in a fork that knows the libraries already: "passed", "failed" or "timeout".

    Args:
        seconds: of computing, whatever else the machine does; who waits has six times that.
    """
    child = os.fork()
    if not child:
        os.setsid()
        limit = max(int(seconds), 1)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        out = os.open(tree / "mutate.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(tree)
        sys.path[:] = [str(tree), *(p for p in sys.path[1:] if Path(p).resolve() != ROOT)]
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *arguments])))
    until = time.monotonic() + 6 * seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    return "timeout" if os.WIFSIGNALED(ended[1]) else "passed" if ended[1] == 0 else "failed"


def copied(tree: Path) -> None:
    """The checkout's files in a folder of their own."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, text=True).split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def measure(tree: Path, module: str, wanted: list[Fault], why: dict[Any, str]) -> dict[str, Any]:
    """The outcome of each fault; `SystemExit` where the module's tests fail without any."""
    path, arguments = tree / module, shlex.split(TESTS[module])
    computed = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
    text, before = path.read_text(), computed()
    if run(tree, arguments, 600) != "passed":
        sys.exit(f"{module}: its tests fail as they are:\n{(tree / 'mutate.log').read_text()}")
    usual = computed() - before
    print(f"{module}: {len(wanted)} faults, tests of {usual:.0f} s", flush=True)
    survivors = []
    for fault in wanted:
        path.write_text(fault.text)
        if run(tree, arguments, 2 * usual + 5) == "passed":
            said = {"line": fault.line, "before": fault.before, "after": fault.after}
            survivors.append({**said, "why": why.get((module, fault.before, fault.after), "")})
            print(f"{module}:{fault.line}\n- {fault.before}\n+ {fault.after}", flush=True)
    path.write_text(text)
    return {"made": len(wanted), "killed": len(wanted) - len(survivors), "survivors": survivors}


def main() -> None:
    """Measure; OUT.json is written after every module, and keeps the reasons it gave for survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all that TESTS names")
    parser.add_argument("--number", type=int, default=20, help="faults of a module, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true", help="only those that OUT.json has as survivors")
    chosen = parser.parse_args()
    found = json.loads(chosen.out.read_text())["modules"] if chosen.out.exists() else {}
    why = {(m, s["before"], s["after"]): s["why"] for m, r in found.items() for s in r["survivors"]}
    for library in ("torch", "torch.utils.tensorboard", "cv2", "pydantic", "PIL.Image", "pytest"):
        importlib.import_module(library)
    git = lambda *words: subprocess.check_output(["git", "-C", str(ROOT), *words], text=True).strip()  # noqa: E731
    commit = git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "fss", "tests") else "")
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for module in chosen.modules or list(TESTS):
            possible = faults((ROOT / module).read_text())
            wanted = random.Random(f"{chosen.seed}/{module}").sample(
                possible, min(chosen.number, len(possible))
            )
            if chosen.survivors:
                wanted = [f for f in possible if (module, f.before, f.after) in why]
            if not wanted:
                continue
            new = measure(Path(folder), module, wanted, why)
            if chosen.survivors:  # of all that were made, these still survive
                made = found[module]["made"]
                new |= {"made": made, "killed": made - len(new["survivors"])}
            found[module] = {"commit": commit, "possible": len(possible), **new}
            total = {k: sum(part[k] for part in found.values()) for k in ("possible", "made", "killed")}
            total["explained"] = sum(bool(s["why"]) for part in found.values() for s in part["survivors"])
            said = {"date": date.today().isoformat(), "environment": {"commit": commit}, "seed": chosen.seed}
            said |= {"total": total, "modules": dict(sorted(found.items()))}
            chosen.out.write_text(json.dumps(said, indent=1) + "\n")
    print(json.dumps(total))


if __name__ == "__main__":
    main()
