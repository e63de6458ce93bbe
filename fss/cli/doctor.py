"""The verb that looks at the installation: doctor."""

import argparse
from pathlib import Path

from fss.cli.common import Verb
from fss.errors import UserError

_MORE = """marks:
  ok        there, and fit for use
  optional  not there, and nothing needs it until you ask for it
  warning   works, but slowly or not for long
  missing   not there, and fss does not work without it
  broken    there, and of no use
The exit code is 2 where something is missing or broken, else 0.

Nothing is written and nothing is fetched. --json is what a report of a bug should
hold; it names no machine, and paths in your home folder begin with ~."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    text = "the folder for results (default: results)"
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help=text)


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    from fss.doctor.report import as_json, as_text, examine, fatal, next_steps

    items = examine(options.output)
    steps = next_steps(items)
    print((as_json if options.json else as_text)(items, steps))
    if lacking := fatal(items):
        raise UserError(f"fss does not work without {', '.join(lacking)}; see above")


VERBS = {
    "doctor": Verb(
        "tell what is there, what is missing, and what to run next", _options, _run,
        ("fss doctor", "fss doctor --json", "fss doctor --output runs/march"), _MORE,
    ),
}  # fmt: skip
