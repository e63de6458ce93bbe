"""The command line: parse, build, call. No logic."""

import argparse
import errno
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

import fss
from fss.cli import cluster, completion, demo, doctor, export, predict, pseudo, runs, sets, tools
from fss.errors import UserError
from fss.parts import nearest

_PARTS = (doctor, predict, demo, runs, sets, pseudo, cluster, tools, export, completion)
VERBS = {name: verb for part in _PARTS for name, verb in part.VERBS.items()}
# Groups of `fss --help`, in this order. Verbs that are named nowhere stand in the last group.
GROUPS = {
    "start here": ("doctor", "predict", "evaluate-own", "demo"),
    "data": ("prepare", "check-data", "plan"),
    "train and test": ("train", "test", "pretrain", "run-folds"),
    "look and compare": ("report", "bench"),
    "labels that cost less": ("pseudo-label", "cluster"),
    "tools": ("convert", "export", "completion"),
}
_MORE = """examples:
  fss doctor
  fss train --data shapes --fold 0
  fss test --data shapes --fold 0 --shots 5 --visualize
  fss report results/shapes

`fss VERB --help`, or `fss help VERB`, tells a verb's options, with examples."""

_BUG = "fss: a bug of ours, or a broken installation: `fss doctor` tells which"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if it worked, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    try:
        verb = _verb(arguments)
        options, unknown = verb_parser(verb).parse_known_intermixed_args(arguments[1:])
        if unknown:
            known = [name for action in verb_parser(verb)._actions for name in action.option_strings]
            near = nearest(unknown[0].partition("=")[0], known)
            raise UserError(f"unknown option {unknown[0]}{near}; see `fss {verb} --help`")
        VERBS[verb].run(options, arguments)
        return 0
    except UserError as error:
        return _fail(str(error))
    except OSError as error:  # no permission, no space
        return _fail(_plainly(error))
    except ModuleNotFoundError as error:
        if (error.name or "fss").partition(".")[0] == "fss":
            raise
        return _fail(f"the package {error.name} is not installed; `fss doctor` tells what is needed")
    except Exception as error:
        if sys.version_info >= (3, 11):
            error.add_note(_BUG)
        raise
    except KeyboardInterrupt:
        print("\nfss: interrupted; the same command goes on from there", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print(f"fss: error: {message}".replace("\n", "\n  "), file=sys.stderr)
    return 2


def _plainly(error: OSError) -> str:
    """The machine's refusal in words: the file, the reason, and what to do about it."""
    reason = (error.strerror or str(error)).lower()
    place = f"{error.filename}: " if error.filename else ""
    goes_on = "and the same command goes on"
    fixes = {
        errno.ENOSPC: f"make room, {goes_on}",
        errno.EDQUOT: f"make room, {goes_on}",
        errno.EACCES: f"allow it, {goes_on}, or name another place",
        errno.EEXIST: "a file is in the way; name another place",
        errno.ENOTDIR: "a file is in the way; name another place",
    }
    return f"{place}{reason}; {fixes.get(error.errno or 0, 'name another place')}"


def _verb(arguments: Sequence[str]) -> str:
    """The verb that is asked for; the help, and code 2, where there is none.

    Raises:
        UserError: there is no such verb; names the nearest one.
    """
    parser = top_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    name = arguments[0]
    if name in VERBS:
        return name
    parser.parse_known_args([name])  # --help and --version
    if name.startswith("-"):
        raise UserError(f"unknown option {name}; a verb comes first, see `fss --help`")
    raise UserError(f"unknown verb {name!r}{nearest(name, list(VERBS))}; there are: {', '.join(VERBS)}")


def top_parser() -> argparse.ArgumentParser:
    """The parser of `fss` itself, whose help groups the verbs by their purpose."""
    parser = argparse.ArgumentParser(
        prog="fss",
        usage="fss VERB [options] [section.key=value ...]",
        description="\n\n".join([str(fss.__doc__), *_grouped()]),
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fss {fss.__version__}", help="the version")
    return parser


def _grouped() -> list[str]:
    """A paragraph for each group of verbs, 80 columns wide."""
    named = {name for names in GROUPS.values() for name in names}
    *_, last = GROUPS
    paragraphs = []
    for title, names in GROUPS.items():
        more = [name for name in VERBS if name not in named] if title == last else []
        lines = [_line(name) for name in (*names, *more) if name in VERBS]
        paragraphs.append("\n".join([f"{title}:", *lines]))
    return paragraphs


def _line(name: str) -> str:
    return textwrap.fill(VERBS[name].help, 78, initial_indent=f"  {name:<14}", subsequent_indent=" " * 16)


class _Parser(argparse.ArgumentParser):
    """A parser that says what a number is in plain words."""

    def error(self, message: str) -> NoReturn:
        message = re.sub("invalid int value: (.*)", r"\1; wanted a whole number", message)
        super().error(re.sub("invalid float value: (.*)", r"\1; wanted a number, such as 0.5", message))


def verb_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb, with its examples below its help."""
    verb = VERBS[name]
    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = _Parser(
        prog=f"fss {name}",
        description=verb.help,
        epilog=f"examples:\n{examples}\n\n{verb.more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=name)
    verb.options(parser)
    return parser
