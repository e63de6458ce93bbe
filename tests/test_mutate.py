"""The study that puts faults into modules: which it makes, and that a test tells whether one is noticed."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def study():
    pytest.importorskip("resource", reason="forks are Unix's")
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "studies/mutate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCE = '''"""Ünicode stays: é."""
LIMIT = 3


def share(a: int, b: int = 2, *, whole: bool = True) -> float:
    """A share."""
    if not a < b:
        raise ValueError(f"{a + 1} is too large")
    found = {}
    found["é"] = max(a, 0, key=abs)
    return found["é"] / b if whole else -1.5
'''


def test_faults_are_small_and_of_every_kind(study):
    made = study.faults(SOURCE)
    changes = {(f.line, f.after) for f in made}
    for wanted in [
        (2, "LIMIT = 4"), (2, "LIMIT = 2"), (7, "if not (a <= b):"), (7, "if not (a >= b):"),
        (7, "if (a < b):"),
        (7, "if False:"), (7, "if True:"), (8, "pass"), (10, "pass"), (10, 'found["é"] = max(a, 0)'),
        (10, 'found["é"] = min(a, 0, key=abs)'), (10, 'found["é"] = max(a, 1, key=abs)'),
        (11, "return (found['é'] / b)"), (11, "return (-1.5)"),
        (11, "return (found['é'] * b) if whole else -1.5"),
        (11, 'return found["é"] / b if whole else (1.5)'), (11, 'return found["é"] / b if whole else -3.0'),
        (5, "def share(a: int, b: int = 3, *, whole: bool = True) -> float:"),
        (5, "def share(a: int, b: int = 2, *, whole: bool = False) -> float:"),
    ]:  # fmt: skip
        assert wanted in changes, wanted
    assert len({f.text for f in made}) == len(made) == 21
    for fault in made:
        compile(fault.text, "module", "exec")
        assert fault.text != SOURCE and "a + 1" in fault.text.replace("pass", "a + 1")  # no message changes


def test_a_test_that_fails_notices_and_one_that_passes_does_not(study, tmp_path):
    (tmp_path / "test_it.py").write_text("import os\n\ndef test_it():\n    assert os.path.exists('there')\n")
    assert study.run(tmp_path, ["test_it.py"], 60) == "failed"
    (tmp_path / "there").touch()
    assert study.run(tmp_path, ["test_it.py"], 60) == "passed"
    (tmp_path / "test_it.py").write_text("def test_it():\n    while True:\n        pass\n")
    assert study.run(tmp_path, ["test_it.py"], 0.2) == "timeout"


def test_modules_and_their_tests_are_there(study):
    for module, arguments in study.TESTS.items():
        assert (ROOT / module).is_file(), module
        assert all((ROOT / a).is_file() for a in arguments.split() if a.endswith(".py")), module


def test_every_survivor_is_explained_and_counts_add_up(study):
    found = json.loads((ROOT / "studies/results/mutants.json").read_text(encoding="utf-8"))
    assert found["modules"].keys() == study.TESTS.keys()
    for module, part in found["modules"].items():
        assert part["made"] - part["killed"] == len(part["survivors"]), module
        assert all(s["why"] for s in part["survivors"]), module
    for key in ("possible", "made", "killed"):
        assert found["total"][key] == sum(part[key] for part in found["modules"].values())
