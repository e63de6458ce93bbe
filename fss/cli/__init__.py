"""The command line: parse, build, call. No logic."""

import argparse
import sys
from collections.abc import Sequence

import fss
from fss.cli import cluster, export, pseudo, runs, sets, tools
from fss.errors import UserError

VERBS = runs.VERBS | sets.VERBS | pseudo.VERBS | cluster.VERBS | tools.VERBS | export.VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if it worked, 2 for a mistake of the user's, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = _parser().parse_args(arguments[:1]).verb
    options, unknown = _verb_parser(verb).parse_known_intermixed_args(arguments[1:])
    try:
        if unknown:
            raise UserError(f"unknown option {unknown[0]}; see `fss {verb} --help`")
        VERBS[verb].run(options, arguments)
        return 0
    except (UserError, OSError) as error:  # OSError: no permission, no space
        print(f"fss: error: {error}".replace("\n", "\n  "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfss: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<12} {verb.help}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="fss",
        description=fss.__doc__,
        usage="fss VERB [options] [section.key=value ...]",
        epilog=f"verbs:\n{verbs}\n\n`fss VERB --help` tells a verb's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    parser.add_argument("--version", action="version", version=f"fss {fss.__version__}")
    return parser


def _verb_parser(name: str) -> argparse.ArgumentParser:
    verb = VERBS[name]
    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser = argparse.ArgumentParser(
        prog=f"fss {name}",
        description=verb.help,
        epilog=f"examples:\n{examples}\n\n{verb.more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=name)
    verb.options(parser)
    return parser
