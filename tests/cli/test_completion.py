"""Completion: the script is sourced in the shell itself, and asked."""

import shutil
import subprocess
import sys

import pytest

from fss.cli import VERBS, main
from fss.recipes import recipe_names

pytest.importorskip("shtab", reason="shtab makes the scripts")
# Asks the function that `complete` was given, as bash does on Tab, and prints a candidate a line.
ASK = """
source "$1"; shift
name=$(complete -p fss); name=${name##*-F }; name=${name%% *}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$name" fss "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    from fss.cli.completion import SHELLS, script

    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    return folder


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([""], {"help", *VERBS}),
        (["trai"], {"train"}),
        (["help", "pre"], {"predict", "prepare", "pretrain"}),
        (["train", "--da"], {"--data"}),
        (["train", "--data", ""], set(recipe_names("data"))),
        (["train", "--data", "shapes", "--head", "a"], {"asgnet"}),
        (
            ["test", "--config", ""],
            {"bam_base", "coco_bam_base", "cpu", "photos", "repri_base", "shapes_pseudo"},
        ),
        (["train", "data.fold=1", "--lay"], {"--layers"}),
        (["bench", "--precision", ""], {"auto", "bf16", "fp32"}),
        (["check-data", "pas"], {"pascal", "pascal_to_coco"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["cluster", "pho"], {"photo.jpg", "photos"}),
        (["cluster", "--reference", "pho"], {"photos"}),
    ],
)
def test_bash(scripts, words, wanted, tmp_path):
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "photos").mkdir()
    command = ["bash", "--norc", "-c", ASK, "bash", str(scripts / "bash"), "fss", *words]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (set(run.stdout.split()), run.stderr) == (wanted, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(scripts, shell):
    """Every verb is in the script, and the shell can read it where it is installed."""
    text = (scripts / shell).read_text()
    assert all(verb in text for verb in VERBS) and "asgnet" in text
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", str(scripts / shell)]).returncode == 0


def test_verb_prints_the_script(scripts, capsys):
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.strip() == (scripts / "bash").read_text().strip()


def test_a_shell_that_shtab_does_not_know(monkeypatch, capsys):
    import shtab

    monkeypatch.setattr(shtab, "SUPPORTED_SHELLS", ["bash"])
    assert main(["completion", "fish"]) == 2
    assert "knows no fish; pip install" in capsys.readouterr().err


def test_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "the package shtab is not installed" in capsys.readouterr().err
