"""The wheel holds all that an installation needs, and nothing else."""

import ast
import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fss

ROOT = Path(__file__).parent.parent
DATA = (".yaml", ".html", ".typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout keeps no build folder; offline, with the setuptools at hand."""
    pytest.importorskip("setuptools", "70.1", reason="needs setuptools that build wheels themselves")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    for name in ("fss", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    (folder / "tests/__init__.py").touch()  # must stay out
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", "dist"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_contents(unpacked):
    got = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    inside = {p for p in (ROOT / "fss").rglob("*") if p.suffix in (".py", *DATA)}
    wanted = {p.relative_to(ROOT).as_posix() for p in inside}
    wanted |= {f"fss/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.yaml")}
    info = f"fss-{fss.__version__}.dist-info"
    assert {name for name in got if not name.startswith(info)} == wanted
    assert f"{info}/licenses/LICENSE" in got
    entries = configparser.ConfigParser()
    entries.read(unpacked / info / "entry_points.txt")
    assert dict(entries["console_scripts"]) == {"fss": "fss.cli:main"}


def test_every_file_of_the_package_is_code_or_shipped():
    """A new kind of file beside the code must be named in setup.py's package_data, or it stays behind."""
    files = [p for p in (ROOT / "fss").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {p.suffix for p in files} <= {".py", *DATA}


def test_metadata(unpacked):
    text = (unpacked / f"fss-{fss.__version__}.dist-info/METADATA").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "Requires-Python: >=3.10" in lines and f"Version: {fss.__version__}" in lines
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra")}
    assert extras == {"all", "demo", "dev", "export", "heic", "insid3", "prepare"}
    optional = {line.split(";")[0] for line in lines if 'extra == "' in line and '"dev"' not in line}
    assert optional == {line.split(";")[0] for line in lines if line.endswith('extra == "all"')}


def test_it_finds_its_recipes_from_another_folder(unpacked, tmp_path):
    code = """
from pathlib import Path
import fss
from fss.recipes import find_recipe, load_config
config = load_config("pascal", "asgnet", [], ["cpu"])
print(Path(fss.__file__).parent, find_recipe("data", "shapes").parent, config.data.name, config.head.type)
"""
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    package = unpacked / "fss"
    assert run.stdout.split() == [str(package), str(package / "configs/data"), "pascal", "asgnet"], run.stderr


def test_it_runs_from_another_folder(unpacked, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "fss", "train", "--data", "nowhere"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 2 and "there are: coco," in run.stderr


def test_development_tools_are_held_to_versions_that_were_tried():
    """A formatter's or a linter's new version must not turn a change of something else red."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    named = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    tools = [Requirement(text) for text in ast.literal_eval(named["CHECKS"])]
    assert len(tools) > 5
    for tool in tools:
        assert {spec.operator for spec in tool.specifier} == {">=", "<"}, tool
        assert tool.specifier.contains(version(tool.name)), f"{tool}: {version(tool.name)} is installed"
