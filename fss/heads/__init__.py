"""Heads by name. A head of your own is named in YAML by its import path, `my_pkg.my_file:MyHead`."""

import difflib
import importlib
import inspect
from typing import Any

from fss.errors import UserError
from fss.heads.base import Features, Head, HeadOutput

HEADS = {"cwt": "fss.heads.cwt:CWT"}

__all__ = ["HEADS", "Features", "Head", "HeadOutput", "build_head", "head_options"]


def find_head(name: str) -> type[Head]:
    """The head class for a name of `HEADS` or an import path `package.module:Class`.

    Raises:
        UserError: unknown name, a file that does not import, a class that is no head.
    """
    path = HEADS.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, HEADS, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown head {name!r}{hint}; allowed: {', '.join(HEADS)}, or package.module:Class")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a user's file can fail in any way
        raise UserError(f"head {name!r}: cannot import {path} ({type(error).__name__}: {error})") from error
    if not (inspect.isclass(found) and issubclass(found, Head)):
        raise UserError(f"head {name!r}: {path} is not a subclass of fss.heads.Head")
    return found


def head_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All keyword arguments of a head, defaults filled in; checked against its signature.

    Raises:
        UserError: a keyword that the head does not take.
    """
    signature = inspect.signature(find_head(name))
    known = {k: p.default for k, p in signature.parameters.items() if k != "channels"}
    for key in options.keys() - known.keys():
        close = difflib.get_close_matches(key, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"head {name!r} takes no {key!r}{hint}; allowed: {', '.join(known)}")
    return {**known, **options}


def build_head(name: str, options: dict[str, Any], channels: dict[str, int]) -> Head:
    """Make a head from its name and keyword arguments; `UserError` where it refuses them."""
    arguments = head_options(name, options)
    try:
        return find_head(name)(channels=channels, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"head {name!r}: {error}") from error
