"""The verb that prints scripts for completion in shells."""

import argparse
from pathlib import Path
from typing import Any

from fss.cli.common import Verb
from fss.errors import UserError

SHELLS = ("bash", "zsh", "fish")
_MORE = """How to switch it on:
  bash   put this line into ~/.bashrc:   source <(fss completion bash)
  zsh    fss completion zsh > DIR/_fss, DIR being in $fpath before compinit
  fish   fss completion fish > ~/.config/fish/completions/fss.fish

It knows verbs, options, files, and the names of recipes as they are when the script
is printed, those of the working folder's configs/ too."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    print(script(options.shell))


def script(shell: str) -> str:
    """What a shell sources to complete `fss`.

    Raises:
        UserError: the shtab at hand does not know the shell.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f'shtab {shtab.__version__} knows no {shell}; pip install --upgrade "shtab>=1.10"')
    return shtab.complete(whole_parser(), shell)


def whole_parser() -> argparse.ArgumentParser:
    """All verbs in one parser, with what may follow each option. It completes, and parses nothing."""
    from fss.cli import VERBS, top_parser

    parser = top_parser()
    verbs = parser.add_subparsers(metavar="VERB")
    helps = verbs.add_parser("help", help="tell a verb's options")
    helps.add_argument("verb", choices=list(VERBS))
    values = _values()
    for name, verb in VERBS.items():
        own = verbs.add_parser(name, help=verb.help)
        verb.options(own)
        for action in own._actions:
            _tell(action, values.get(f"{name} {action.dest}", []), values)
    return parser


def _tell(action: Any, words: list[str], values: dict[str, list[str]]) -> None:
    """Words that may follow an option or stand for a positional argument, in shtab's form."""
    import shtab

    for option in action.option_strings:
        words = words or values.get(option, [])
    if words:
        action.choices = words
    if action.type is Path:
        folder = action.metavar in ("DIR", "OUT")
        action.complete = shtab.DIRECTORY if folder else shtab.FILE


def _values() -> dict[str, list[str]]:
    """Words that may follow options of any verb, or stand for positional arguments of one ("VERB DEST")."""
    from fss.backbones import BACKBONES
    from fss.exchange.convert import KINDS
    from fss.recipes import recipe_names

    heads = recipe_names("head")
    pairs = tuple(f"_{head}" for head in heads)  # NAME_HEAD.yaml comes with NAME by itself
    sets = recipe_names("data")
    return {
        "--data": sets,
        "--head": heads,
        "--config": [name for name in recipe_names("") if not name.endswith(pairs)],
        "--layers": ["18", "34", "50", "101", *BACKBONES],
        "--kind": list(KINDS),
        "check-data paths": sets,
        "prepare name": ["pascal", "coco", "fss1000", "folder"],
        "pseudo-label words": ["train", "write"],
    }


VERBS = {
    "completion": Verb(
        "print a script that completes `fss` in a shell", _options, _run,
        ("fss completion bash", "fss completion zsh", "fss completion fish"), _MORE,
    ),
}  # fmt: skip
