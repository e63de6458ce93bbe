"""The shell scripts: plain sh, usage, and the environment that they choose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))


def sh(*command, cwd=ROOT, **env):
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    return subprocess.run(["sh", *map(str, command)], cwd=cwd, env=here, capture_output=True, text=True)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_valid_sh(path):
    assert sh("-n", path).returncode == 0


@pytest.mark.parametrize("name", ["train.sh", "test.sh"])
def test_too_few_arguments_print_the_usage(name):
    run = sh(ROOT / "scripts" / name, "shapes")
    assert run.returncode == 2 and f"sh scripts/{name} " in run.stderr


def test_arguments_with_spaces_arrive_whole(tmp_path):
    """From another folder, with the active environment, and a data root with a space in its name."""
    run = sh(ROOT / "scripts/test.sh", "folder", "1", "[0]", "18", "0", "data.root=no such set", cwd=tmp_path)
    assert run.returncode == 2
    assert "no data folder no such set" in run.stderr and "setting up" not in run.stdout
