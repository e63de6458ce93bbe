"""`fss doctor`: what it finds, what it proposes when things are broken, and that it never fails itself."""

import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from fss.cli import main, verb_parser
from fss.doctor import files, machine, packages
from fss.doctor.item import Item, shown
from fss.doctor.report import TRIAL, next_steps
from tests.make import make_voc

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def doctor(capsys, *arguments):
    code = main(["doctor", "--json", *arguments])
    content = json.loads(capsys.readouterr().out)
    return code, content, {(item["section"], item["name"]): item for item in content["items"]}


def test_a_sound_installation(capsys, tmp_path):
    code, content, items = doctor(capsys)
    assert code == 0 and content["ok"] and content["next"][0] == TRIAL
    assert {section for section, _ in items} == {"packages", "machine", "data", "weights", "results"}
    assert {item["state"] for item in content["items"]} <= {"ok", "optional", "warning"}
    assert items["data", "pascal"]["fix"] == "fss prepare pascal --root data/pascal --download"
    assert list(tmp_path.iterdir()) == []
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(item["name"] in text for item in content["items"]) and TRIAL in text


def test_data_that_is_there_is_found(capsys, tmp_path):
    make_voc(tmp_path / "data/pascal", 2, 2)
    _, _, items = doctor(capsys)
    assert items["data", "pascal"]["state"] == "optional"
    assert "no lists/pascal/train.txt, lists/pascal/val.txt" in items["data", "pascal"]["detail"]
    (tmp_path / "lists/pascal").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / f"lists/pascal/{split}.txt").touch()
    (tmp_path / "initmodel").mkdir()
    (tmp_path / "initmodel/resnet50-0676ba61.pth").touch()
    code, content, items = doctor(capsys)
    assert code == 0 and items["data", "pascal"]["state"] == "ok"
    assert items["weights", "resnet50"]["detail"] == "initmodel/resnet50-0676ba61.pth"
    assert "fss train --data pascal --fold 0" in content["next"]


def test_weights_are_where_the_backbones_say(monkeypatch):
    installed = f"{sysconfig.get_path('purelib')}/some_package/weights.pth"
    there = [("resnet18", ""), ("resnet50", "initmodel/a.pth"), ("efficientnet_lite0", installed)]
    monkeypatch.setattr("fss.backbones.weights_there", lambda: there)
    items = {item.name: item for item in files._weights()}
    assert items["resnet50"].state == "ok" and items["resnet50"].detail == "initmodel/a.pth"
    assert items["efficientnet_lite0"][2:4] == ("ok", "comes with the installation")
    assert items["others"].detail.startswith("none for resnet18 in")
    assert items["timm"].fix == "backbone.type=timm:NAME backbone.weights=download"


def test_a_recipe_with_a_mistake(capsys, tmp_path):
    (tmp_path / "configs/data").mkdir(parents=True)
    (tmp_path / "configs/data/mine.yaml").write_text("data: {foldd: 3}\n")
    code, _, items = doctor(capsys)
    assert code == 0 and items["data", "mine"]["state"] == "warning"
    assert "foldd" in items["data", "mine"]["detail"]


def test_results_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    code, content, items = doctor(capsys)
    assert code == 2 and not content["ok"] and content["next"][-1] == "fss doctor"
    assert items["results", "folder"]["state"] == "broken"


def test_a_broken_pytorch(tmp_path):
    """In a process of its own, with a PyTorch whose libraries do not load."""
    fake = tmp_path / "site/torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    env = {**os.environ, "PYTHONPATH": f"{fake.parent}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "fss", "doctor"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 2 and "Traceback" not in run.stdout + run.stderr
    assert "libcudart.so.99" in run.stdout and "pip install --force-reinstall torch torchvision" in run.stdout
    assert run.stderr.startswith("fss: error: fss does not work without torch")


@pytest.mark.parametrize(
    ("wanted", "state", "fix"),
    [
        ("numpy>=1.26", "ok", ""),
        ("numpy>=99.1", "missing", 'pip install "numpy>=99.1"'),
        ("no-such-package>=1", "missing", 'pip install "no-such-package>=1"'),
        ("leans>=1", "broken", "pip install --force-reinstall leans"),  # its own needs are missing
    ],
)
def test_a_package_is_fit_missing_or_broken(wanted, state, fix, tmp_path, monkeypatch):
    (tmp_path / "leans.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    (item,) = packages.required(Requirement(wanted))
    assert (item.state, item.fix) == (state, fix)


def test_extras_are_those_of_the_installation(monkeypatch):
    asked = ["numpy>=1", 'no-such>=5; extra == "demo"', 'numpy>=1; extra == "demo"', 'numpy; extra == "dev"']
    monkeypatch.setattr(packages.metadata, "requires", lambda name: asked)
    found = {"get_all": lambda field: ["demo", "dev"]}
    monkeypatch.setattr(packages.metadata, "metadata", lambda name: SimpleNamespace(**found))
    needed, demo = packages.packages()
    assert (needed.name, needed.state) == ("numpy", "ok")
    assert (demo.name, demo.state, demo.fix) == ("[demo]", "optional", 'pip install "no-such>=5"')
    assert demo.detail.startswith("numpy ")


def test_a_check_that_fails_is_an_item(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", missing)  # a checkout that is not installed
    assert {item.state for item in packages.packages()} == {"warning"}


@pytest.mark.parametrize(("quota", "usable"), [("max 100000", 8), ("150000 100000", 2), ("900000 9000", 8)])
def test_threads_fit_the_cores_of_a_container(quota, usable, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    (item,) = machine._threads()
    assert machine.cores() == usable
    assert (item.state, item.fix) == (("warning", "export OMP_NUM_THREADS=2") if usable < 4 else ("ok", ""))


def test_gpus_are_named_with_their_memory(monkeypatch):
    facts = SimpleNamespace(name="A Big One", total_memory=80 * 2**30)
    for name, value in {
        "is_available": True, "device_count": 2, "get_device_properties": facts, "is_bf16_supported": True
    }.items():  # fmt: skip
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, value=value, **__: value)
    first, second, half = machine._devices()
    assert (first.name, second.name, half.detail) == ("GPU 0", "GPU 1", "auto is bfloat16 here")
    assert first.detail.startswith("A Big One, 80 GiB")


def test_a_gpu_that_pytorch_does_not_see(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    item = next(iter(machine._devices()))
    assert item.state == "warning" and "driver" in item.fix


def test_next_steps_mend_what_is_broken_first():
    states = {"a": "missing", "b": "broken", "c": "optional"}
    items = [Item("packages", name, state, "", f"pip install {name}") for name, state in states.items()]
    assert [c for c, _ in next_steps(items)] == ["pip install a", "pip install b", "fss doctor"]


def test_next_steps_are_commands_that_there_are():
    everything = [("weights", "resnet50"), ("data", "pascal"), ("data", "coco"), ("packages", "[demo]")]
    fit = [command for command, _ in next_steps([Item(*where, "ok", "") for where in everything])]
    bare = [command for command, _ in next_steps([])]
    assert len(fit) == len(bare) + 3 and not any("download" in command for command in fit)
    lacking = [command for command, _ in next_steps([Item("data", "pascal", "ok", "")])]
    assert any("backbone.weights=download" in command for command in lacking)
    for command in fit + bare + lacking:
        _, verb, *arguments = command.split()
        assert verb_parser(verb).parse_known_intermixed_args(arguments)[1] == []


def test_home_is_not_told(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    assert shown("/home/somebody/photos") == "~/photos"
    assert shown("/scratch/photos") == "/scratch/photos"
