"""The script that runs documented commands: what it cuts, leaves out, repeats, and runs on."""

import importlib
import sys
from pathlib import Path

import pytest

from fss.cli import main
from scripts.documented import Command

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch):
    """The script as a module; the files beside it are found as when it is run."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    return importlib.import_module("run_docs")


@pytest.fixture
def work(tmp_path):
    """A folder with a program `fss` that does as it is told."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/fss"
    program.write_text(
        '#!/bin/sh\nshift\necho "$@"\nwhile [ "$1" = serve ]; do sleep 1; done\n[ "$1" != bad ]\n'
    )
    program.chmod(0o755)
    return tmp_path


def test_each_command_is_told_well_or_failed_and_what_ran_well_is_not_run_again(script, work, capsys):
    texts = ["fss train good", "fss plan bad", "sbatch job", "fss report x > r.txt", "fss demo serve"]
    commands = [Command("page.md", n, text) for n, text in enumerate(texts)]
    assert script.run_all(commands, work, limit=20, signs={"demo": "serve"}) == 1
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if "page.md:" in line] == [
        "ok", "failed", "cannot", "ok", "ok",
    ]  # fmt: skip
    assert "+ " + script.appended(commands[0]) in out and "        bad test.runs=1" in out
    assert out.splitlines()[-1].startswith("5 commands: 3 ok, 0 ok before, 1 cannot, 1 failed; ")
    assert (work / "r.txt").read_text() == "x\n"
    assert script.run_all(commands, work, limit=20) == 1
    assert "5 commands: 0 ok, 3 ok before, 1 cannot, 1 failed" in capsys.readouterr().out


def test_a_command_that_takes_too_long_is_ended(script, work):
    good, seconds = script.run("fss demo serve", work, work / "log", limit=1)
    assert not good and seconds < 10 and "stopped after 1 s" in (work / "log").read_text()


@pytest.mark.parametrize(
    ("text", "kind", "more"),
    [
        ("sh scripts/train.sh shapes 0 [0] 50 1", "train", "pretrain.seconds=2"),
        ("torchrun --nproc_per_node=2 -m fss train --data pascal", "train", "train.seconds=2"),
        ("fss test --data pascal --checkpoint x.pt", "test", "test.runs=1 test.episodes=4 data.workers=0"),
        ("fss train --data shapes data.train_masks=pseudo", "train", "data.small_classes=drop"),
        ("python scripts/bench_index.py", "bench_index.py", "--masks 100"),
        ("fss plan p.txt && cat p.txt", "plan", ""),
        ("fss check-data pascal", "check-data", ""),
    ],
)
def test_budgets_are_cut_where_there_are_some(script, text, kind, more):
    command = Command("page.md", 1, text)
    assert script.what(command.words) == kind
    assert more in script.appended(command) and bool(more) == bool(script.appended(command))


def test_photos_and_archives_are_fit_for_use(script, tmp_path, monkeypatch, capsys):
    """Of the folder that the commands run in: all but weights and results, which take a while."""
    scratch = importlib.import_module("scratch")
    monkeypatch.chdir(tmp_path)
    for build in (scratch._own, scratch._pascal, scratch._single_photos):
        build(tmp_path)
    assert main(["check-data", "folder", "data.root=my_photos", "--shots", "5"]) == 0
    for source in (["labelme_files"], ["instances.json", "--images", "photos"]):
        assert main(["prepare", "folder", "--root", "my_photos", "--from", *source]) == 0
    assert main(["prepare", "pascal", "--root", "data/pascal", "--download"]) == 0
    assert main(["check-data", "pascal", "--shots", "5"]) == 0
