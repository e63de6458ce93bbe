"""Finds every command in the documentation: in `sh` blocks, on top of recipes, in a verb's help."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# A command that a file's first comment names: `# sh scripts/train.sh ...`
_HEADER = re.compile(r"#\s+((?:sh|fss|python|torchrun|sbatch) \S.*)")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Command(NamedTuple):
    """One documented command, and where it stands: a file below the root, or a verb's help."""

    place: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the command as a shell splits it, without its comment."""
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.place}:{self.line}: {self.text}"


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown files for readers: on top, below docs, and each folder's README."""
    return sorted({*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("[!.]*/README.md")})


def in_page(path: Path, root: Path = ROOT) -> Iterator[Command]:
    """Commands in the ```sh blocks of a Markdown file, a backslash at a line's end joining it to the next."""
    inside, start, parts = False, 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = line.strip() == "```sh"
        elif inside and line.strip() and not (line.lstrip().startswith("#") and not parts):
            start = start if parts else number
            parts.append(line.strip())
            if line.endswith("\\"):
                parts[-1] = parts[-1][:-1].strip()
            else:
                yield Command(str(path.relative_to(root)), start, " ".join(parts))
                parts = []


def in_header(path: Path, root: Path = ROOT) -> Iterator[Command]:
    """Commands that a file's first comment names, a line each."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("#"):
            return
        if match := _HEADER.fullmatch(line):
            yield Command(str(path.relative_to(root)), number, match[1])


def in_help() -> Iterator[Command]:
    """The examples that `fss VERB --help` prints."""
    from fss.cli import VERBS

    for name, verb in VERBS.items():
        for number, text in enumerate(verb.examples, 1):
            yield Command(f"fss {name} --help", number, re.sub(r"\\\n\s*", "", text))


def documented(root: Path = ROOT) -> list[Command]:
    """The commands of all pages, recipes and scripts, and of the help."""
    found = [command for path in pages(root) for command in in_page(path, root)]
    files: Iterable[Path] = [*root.glob("configs/**/*.yaml"), *root.glob("examples/**/*.yaml")]
    for path in [*sorted(files), *sorted(root.glob("scripts/*.sh"))]:
        found += in_header(path, root)
    return [*found, *in_help()]


def spans(path: Path, root: Path = ROOT) -> Iterator[Command]:
    """The texts of a page between single backticks, outside of blocks."""
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            for text in _SPAN.findall(line):
                yield Command(str(path.relative_to(root)), number, text)
