"""Small files that ask for much, and large ones, are refused before they cost anything."""

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import fss
from fss.cli import main
from fss.errors import UserError
from fss.reading import load_yaml, read_json, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "holds more than 10,000 values"),
        (f"head: {{type: cwt}}\n{LAUGHS}", "holds more than 10,000 values"),
        (MERGED, "holds more than 10,000 values"),
        ("a: &a [*a]\n", "holds more than 10,000 values"),
        ("[" * 3000, "nested too deep"),
        ("# " + "x" * (1 << 18), "more than 262,144 bytes"),
    ],
)
def test_recipes_that_grow_are_refused(text, message, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    tracemalloc.start()
    with pytest.raises(UserError, match=message):
        read_yaml(tmp_path / "r.yaml")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_aliases_of_a_recipe_are_read():
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: *a}\n")["b"] == {"x": 1, "y": {"x": 1}}


def test_nothing_else_reads_yaml():
    package, reads = Path(fss.__file__).parent, re.compile(r"yaml\.(safe_|full_|unsafe_)?load")
    assert [p for p in package.rglob("*.py") if reads.search(p.read_text())] == [package / "reading.py"]


@pytest.mark.parametrize("command", [["train", "--data", "FILE"], ["test", "--config", "FILE"]])
def test_the_command_line_says_so_in_a_line(command, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(LAUGHS)
    assert main([str(tmp_path / "r.yaml") if word == "FILE" else word for word in command]) == 2
    said = capsys.readouterr()
    assert "r.yaml: with its aliases written out" in said.err and len(said.out + said.err) < 500


def test_a_setting_of_the_command_line_may_not_grow_either(capsys):
    laughs = "{" + ", ".join(LAUGHS.splitlines()) + "}"
    assert main(["train", f"head.steps={laughs}"]) == 2
    assert len(capsys.readouterr().err) < 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper than 32 levels"),
        ("[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        ('"' + "x" * (1 << 22) + '"', "more than 4,194,304 bytes"),
        ("[" + "9" * 5000 + "]", "cannot be read as a result"),
        ("{", "cannot be read as a result"),
    ],
)
def test_json_that_no_test_writes_is_refused(text, message, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "result.json", "a result")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such file")
def test_a_file_without_an_end_has_one():
    code = "from fss.reading import *; read_json(Path('/dev/zero'), 'a result')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "more than 4,194,304 bytes" in told.stderr
