"""Texts from elsewhere stay texts in Markdown, in spreadsheets and on a terminal."""

import pytest

from fss.writing import csv_cell, from_csv_cell, markdown_cell, plain_line


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("two\nlines\r\n| x |", r"two lines  \| x \|"),
        ("`code`", r"\`code\`"),
        ("![x](http://a/b)", r"![x]\(http://a/b)"),
        ("&lt;b>", "&amp;lt;b&gt;"),
        ("neck.type=ppm 61.8 ± 6.6", "neck.type=ppm 61.8 ± 6.6"),
    ],
)
def test_markdown_shows_letters(text, cell):
    assert markdown_cell(text) == cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''=1", "="]
)
def test_formulas_become_texts_and_come_back(text):
    assert csv_cell(text) == "'" + text
    assert from_csv_cell(csv_cell(text)) == text


@pytest.mark.parametrize("text", ["-2.5", "+3", "1e-3", "-.5e+7", "cat", "'cat'", "a=1", ""])
def test_numbers_and_names_stay(text):
    assert csv_cell(text) == text == from_csv_cell(text)


def test_terminals_are_left_alone():
    assert plain_line("a\x1b[2Jb\nc\u202ed\u2028é") == "a [2Jb c d é"
