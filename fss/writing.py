"""Files that are written whole or not at all, and texts from elsewhere made harmless in what is written."""

import os
import re
from pathlib import Path

from fss.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a file in one go, so that no reader finds half of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        half.write_bytes(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def plain_line(text: str) -> str:
    """A text with blanks for line breaks and for signs that move a terminal's cursor or turn its writing."""
    return _CONTROL.sub(" ", text)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def markdown_cell(text: str) -> str:
    """A text as Markdown shows it letter by letter: no tag, link, code or further cell of a table."""
    plain = plain_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`|]|\]\()", lambda m: "]\\(" if m[0] == "](" else f"\\{m[0]}", plain)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe before =, +, -, @, but for numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_csv_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
