"""Imports run one way, and importing the library does nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fss"
# From the top down; a part may import what stands below it, and of its own. Equal numbers: never each other.
LAYER = {
    "__main__": 12, "cli": 11, "demo": 10, "doctor": 10, "l2g": 9, "training": 8, "bench": 8, "testing": 7,
    "photos": 7, "scribbles": 6, "exchange": 6, "runs": 5, "pictures": 4, "report": 4, "model": 3,
    "data": 2, "necks": 2, "heads": 2, "backbones": 2, "ops": 1, "metrics": 1, "recipes": 1,
    "episode": 0, "config": 0, "parts": 0, "spelling": 0, "reading": 0, "writing": 0, "randomness": 0,
    "bars": 0, "fetching": 1, "errors": -1,
}  # fmt: skip


def layer(module: str) -> tuple[str, int] | None:
    name = module.removeprefix("fss").removeprefix(".")
    keys = [k for k in LAYER if name == k or name.startswith(f"{k}.")]
    return max(((k, LAYER[k]) for k in keys), key=lambda x: len(x[0]), default=None)


def imports(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("fss.")]


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def test_every_file_has_a_layer():
    modules = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in FILES]
    assert [m for m in modules if layer(m) is None] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    own = layer(module)
    assert own is not None
    for name in imports(path):
        other = layer(name)
        if other is None or other[0] == own[0]:
            continue
        assert other[1] < own[1], f"{module} imports {name}"


def test_importing_has_no_side_effects(tmp_path):
    names = [
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in FILES if p.stem != "__main__"
    ]
    names = [n.removesuffix(".__init__") for n in names]
    state = "torch.get_rng_state().sum(), np.random.get_state()[1].sum(), torch.get_num_threads()"
    code = f"""
import importlib, torch, numpy as np
before = {state}
for name in {names!r}:
    importlib.import_module(name)
assert before == ({state}) and not torch.cuda.is_initialized() and torch.is_grad_enabled()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
