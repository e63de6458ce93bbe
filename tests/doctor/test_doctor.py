"""`fss doctor`: what it finds, what it says when things are broken, and that it never fails itself."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fss.cli import main, verb_parser
from fss.doctor import files, machine, packages
from fss.doctor.item import Item, guarded, shown
from fss.doctor.report import PREDICT, TRIAL, as_text, next_steps
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
    assert items["data", "shapes"]["state"] == "ok"
    assert items["data", "pascal"]["fix"] == "fss prepare pascal --root data/pascal --download"
    assert items["weights", "ResNet"]["state"] == "optional"
    assert list(tmp_path.iterdir()) == []


def test_text_says_the_same(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    _, content, _ = doctor(capsys)
    for item in content["items"]:
        assert any(f"  {item['state']:<8}  {item['name']} " in line for line in text.splitlines())
    assert text.index("what to do next") < text.index(TRIAL)


def test_what_is_there_is_found(capsys, tmp_path):
    (tmp_path / "initmodel").mkdir()
    (tmp_path / "initmodel/resnet50-0676ba61.pth").touch()
    (tmp_path / "initmodel/vit_b_16-c867db91.pth").touch()
    make_voc(tmp_path / "data/pascal", 2, 2)
    _, _, items = doctor(capsys)
    assert items["data", "pascal"]["state"] == "optional"
    assert "no lists/pascal/train.txt, lists/pascal/val.txt" in items["data", "pascal"]["detail"]
    (tmp_path / "lists/pascal").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / f"lists/pascal/{split}.txt").touch()
    code, content, items = doctor(capsys)
    assert code == 0 and items["data", "pascal"]["state"] == "ok"
    assert items["weights", "ResNet-50"]["detail"] == "initmodel/resnet50-0676ba61.pth"
    assert items["weights", "ViT-B/16"]["state"] == "ok"
    assert "18, 34, 101" in items["weights", "ResNet"]["detail"]
    assert "fss train --data pascal --fold 0" in content["next"]


def test_a_recipe_with_a_mistake(capsys, tmp_path):
    (tmp_path / "configs/data").mkdir(parents=True)
    (tmp_path / "configs/data/mine.yaml").write_text("data: {foldd: 3}\n")
    code, _, items = doctor(capsys)
    assert code == 0 and items["data", "mine"]["state"] == "warning"
    assert "foldd" in items["data", "mine"]["detail"]


def test_results_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    code, content, items = doctor(capsys)
    assert code == 2 and not content["ok"]
    assert items["results", "folder"]["state"] == "broken"
    assert content["next"][-1] == "fss doctor"


def test_a_full_disk(capsys, monkeypatch):
    monkeypatch.setattr(files, "LITTLE", 2**80)
    code, _, items = doctor(capsys)
    assert code == 0 and items["results", "folder"]["state"] == "warning"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_broken_pytorch(tmp_path, options):
    """In a process of its own, with a PyTorch whose libraries do not load."""
    fake = tmp_path / "site/torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    env = {**os.environ, "PYTHONPATH": f"{fake.parent}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "fss", "doctor", *options]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr
    assert "libcudart.so.99" in run.stdout and "pip install --force-reinstall torch torchvision" in run.stdout
    assert run.stderr.startswith("fss: error: fss does not work without torch")
    if options:
        assert not json.loads(run.stdout)["ok"]


def test_packages_that_are_missing_or_old(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    item = packages.required("tqdm", "tqdm", ">=4.65")
    assert (item.state, item.fix) == ("missing", 'pip install "tqdm>=4.65"')
    item = packages.required("numpy", "numpy", ">=99.1")
    assert (
        item.state == "missing"
        and "wanted is >=99.1" in item.detail
        and item.fix == 'pip install "numpy>=99.1"'
    )


def test_a_package_whose_own_needs_are_missing(tmp_path, monkeypatch):
    (tmp_path / "leans.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    item = packages.required("leans", "leans", ">=1")
    assert item.state == "broken" and "a_package_that_is_not_there" in item.detail


def test_extras_that_are_missing(monkeypatch):
    monkeypatch.setattr(
        packages, "EXTRAS", {"demo": {"no-such": ("no_such_module", ">=5"), "numpy": ("numpy", ">=1")}}
    )
    (item,) = [i for i in packages.packages() if i.name == "[demo]"]
    assert item.state == "optional" and item.fix == 'pip install "no-such>=5"'
    assert item.detail.startswith("numpy ") and item.detail.endswith("no-such")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.15.0+cu132", ">=2.6", True), ("2.6.0", ">=2.6", True), ("2.5.9", ">=2.6", False),
        ("5.0.0.93", ">=4.8", True), ("6.31.0", ">=6,<7", True), ("7.0.0", ">=6,<7", False),
        ("0.1", "", True),
    ],
)  # fmt: skip
def test_versions_compare_as_numbers(version, wanted, fits):
    assert packages.fits(version, wanted) == fits


def test_packages_are_those_of_setup(monkeypatch):
    setuptools = pytest.importorskip("setuptools", reason="reads setup.py")
    said = {}
    monkeypatch.setattr(setuptools, "setup", said.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    extras = dict(packages.EXTRAS)
    comes_with_it = packages.REQUIRED | extras.pop("completion")
    wanted = [name + versions for name, (_, versions) in comes_with_it.items()]
    assert sorted(said["install_requires"]) == sorted(wanted)
    assert extras.keys() == said["extras_require"].keys() - {"all", "dev"}
    for extra, parts in extras.items():
        wanted = [name + versions for name, (_, versions) in parts.items()]
        assert said["extras_require"][extra] == wanted


@pytest.mark.parametrize(
    ("threads", "usable", "state"), [(2, 2, "ok"), (8, 2, "warning"), (1, 16, "warning"), (1, 1, "ok")]
)
def test_threads(threads, usable, state, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr(machine, "cores", lambda: usable)
    (item,) = machine._threads()
    assert (item.state, bool(item.fix)) == (state, state == "warning")


@pytest.mark.parametrize(
    ("quota", "usable"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("9000000 100000", 8)],
)
def test_cores_of_a_container(quota, usable, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert machine.cores() == usable


def test_gpus_are_named_with_their_memory(monkeypatch):
    facts = SimpleNamespace(name="A Big One", total_memory=80 * 2**30)
    for name, value in {
        "is_available": True, "device_count": 2, "get_device_properties": facts, "is_bf16_supported": True
    }.items():  # fmt: skip
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, value=value, **__: value)
    first, second, half = machine._devices()
    assert (first.name, second.name, half.name) == ("GPU 0", "GPU 1", "bfloat16")
    assert first.state == half.state == "ok" and first.detail.startswith("A Big One, 80 GiB")


def test_a_gpu_that_pytorch_does_not_see(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    item = next(iter(machine._devices()))
    assert item.state == "warning" and "driver" in item.fix


def test_a_check_that_fails_is_an_item():
    def check():
        raise RuntimeError("no such thing\nsecond line")

    (item,) = guarded("machine", "thing", check)
    assert item.state == "warning" and item.detail.endswith("RuntimeError: no such thing")


def test_next_steps_mend_what_is_broken_first():
    items = [
        Item("packages", "a", "missing", "", "pip install a"),
        Item("packages", "b", "broken", "", "pip install b"),
        Item("packages", "c", "optional", "", "pip install c"),
    ]
    assert [command for command, _ in next_steps(items)] == [
        "pip install a",
        "pip install b",
        "fss doctor",
    ]
    assert "optional  c" in as_text(items, [])


def test_next_steps_are_commands_that_there_are():
    everything = [("weights", "ResNet-50"), ("data", "pascal"), ("data", "coco"), ("packages", "[demo]")]
    fit = [command for command, _ in next_steps([Item(*where, "ok", "") for where in everything])]
    bare = [command for command, _ in next_steps([])]
    assert len(fit) == len(bare) + 3 and not any("download" in command for command in fit)
    assert [c for c in bare if "download" in c] == [f"{PREDICT} backbone.weights=download"]
    for command in fit + bare:
        _, verb, *arguments = command.split()
        assert verb_parser(verb).parse_known_intermixed_args(arguments)[1] == []


def test_home_is_not_told(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    assert shown("/home/somebody/photos") == "~/photos"
    assert shown(Path("/scratch/photos")) == "/scratch/photos"
