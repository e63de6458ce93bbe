"""A head can be read: one file, a short `forward`, and its source named at the top."""

import inspect
import re
from pathlib import Path

import pytest

from fss.heads import HEADS, find_head

LINES, FORWARD = 400, 24  # of a file, and of `forward` with its docstring
SOURCE = re.compile(r"(CVPR|ICCV|ECCV|NeurIPS|NIPS|TPAMI|ICLR|ICML) \d{4}")


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_one_file_that_names_its_paper(name):
    head = find_head(name)
    file = Path(inspect.getsourcefile(head))
    text = file.read_text(encoding="utf-8")
    assert file.stem == name and len(text.splitlines()) < LINES
    assert SOURCE.search(inspect.getmodule(head).__doc__), "the first lines say which paper it is from"
    assert "Args:" in head.__doc__ or set(inspect.signature(head).parameters) <= {"channels", "strides"}


@pytest.mark.parametrize("name", HEADS)
def test_its_forward_fits_a_screen(name):
    lines = inspect.getsource(find_head(name).forward).rstrip().splitlines()
    assert len(lines) <= FORWARD, f"{len(lines)} lines; give its steps names of their own"


def test_every_head_stands_in_the_table_of_heads():
    page = (Path(__file__).parent.parent.parent / "docs/heads.md").read_text(encoding="utf-8")
    tables = [block for block in page.split("\n\n") if block.startswith("| head |")]
    assert len(tables) == 3
    for table in tables:
        rows = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))))
        assert set(HEADS) <= rows
