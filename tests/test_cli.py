"""The command line: GPUs as people write them, and mistakes without tracebacks."""

import re

import pytest

from fss.cli import main
from fss.cli.common import parse_gpus
from fss.errors import UserError
from tests.make import TINY, make_folder


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("[0]", [0]),
        ("0", [0]),
        ("[0,1]", [0, 1]),
        ("0,1", [0, 1]),
        ("[0, 3]", [0, 3]),
        ("cpu", None),
        ("[cpu]", None),
    ],
)
def test_gpus(text, gpus):
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize("text", ["", "[]", "[0;1]", "gpu0", "-1", "0,0"])
def test_wrong_gpus(text):
    with pytest.raises(UserError, match="GPUs"):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--fold", "seven"], "data.fold: wanted a whole number .got 'seven'"),
        (["test", "--gpus", "x"], "GPUs 'x'"),
        (["test", "--nonsense"], "unknown option --nonsense"),
        (["test", "stray"], "'stray' is not key=value"),
        (["test", "device=tpu"], "device=tpu: allowed are auto, cpu, cuda"),
        (["test", "--data", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        (["test", "--config", "cpuu"], "unknown recipe 'cpuu', did you mean cpu"),
        (["test", "--data", "folder", "--gpus", "cpu", "data.root=nowhere"], "no data folder nowhere"),
        (["pretrain", "--data", "folder", "data.fold=-1", "device=cpu"], "fold=-1 of 4 has no base classes"),
    ],
)
def test_mistakes_end_with_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_a_clear_error(tmp_path, capsys):
    root = make_folder(tmp_path / "set")
    (tmp_path / "results").write_text("a file where the folder should be")
    assert (
        main(["pretrain", "--data", "folder", f"data.root={root}", f"output={tmp_path}/results", *TINY]) == 2
    )
    assert "results" in capsys.readouterr().err
