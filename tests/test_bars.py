"""Progress bars: drawn over on a terminal, whole lines now and then in a file."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fss
from fss import bars
from fss.bars import Bar
from tests.make import TINY, make_folder

PACKAGE = Path(fss.__file__).parent


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as bars see them."""
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def steps(clock, file, count=1000, **named):
    """A bar of a thousand steps that take a second each, with a message and another bar on the way."""
    for i in Bar(range(count), "steps", mininterval=0, file=file, **named):
        clock[0] += 1
        if i == 500:
            Bar.write("half done", file=file)
            for _ in Bar(range(3), "within", mininterval=0, file=file, leave=False):
                clock[0] += 1


def test_a_file_gets_a_whole_line_now_and_then(clock):
    file = io.StringIO()
    steps(clock, file)
    lines = file.getvalue().split("\n")
    assert "\r" not in file.getvalue() and lines.pop() == "" and all(lines)
    assert lines.count("half done") == 1
    bar = [line for line in lines if line.startswith("steps:")]
    assert len(bar) + 1 == len(lines) and 1000 // 30 <= len(bar) <= 1000 // 30 + 2
    assert "100%" in bar[-1] and "100%" not in bar[-2]


def test_a_bar_that_is_done_soon_says_nothing_or_that_it_is_done(clock):
    file = io.StringIO()
    steps(clock, file, 20, leave=False)
    assert file.getvalue() == ""
    steps(clock, file, 20)
    assert len(file.getvalue().splitlines()) == 1 and "20/20" in file.getvalue()
    bar = Bar(total=3, file=file, disable=True)
    bar.close()
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_is_drawn_over(clock):
    file = Terminal()
    steps(clock, file, 20)
    assert file.getvalue().count("\r") >= 20


def test_a_training_and_a_test_leave_a_log_that_can_be_read(tmp_path):
    where = [f"data.root={make_folder(tmp_path / 'set')}", f"output={tmp_path / 'out'}"]
    command = [sys.executable, "-m", "fss", "train", "--data", "folder", *where, *TINY, "train.episodes=20"]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent)}
        assert subprocess.run(command, stderr=file, stdout=file, env=env).returncode == 0
    text = log.read_text()
    assert "\r" not in text and "\x1b" not in text and len(text.splitlines()) < 40
    assert sum("100%" in line for line in text.splitlines()) == 2  # of each training one line, at its end


def test_all_bars_are_of_this_kind():
    users = [
        p for p in PACKAGE.rglob("*.py") if "from tqdm" in p.read_text() or "import tqdm" in p.read_text()
    ]
    assert users == [PACKAGE / "bars.py"]
