"""Heads by name. A head of your own is named in YAML by its import path, `my_pkg.my_file:MyHead`."""

import difflib
import importlib
import inspect
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fss.errors import UserError
from fss.heads.base import Features, Head, HeadOutput, Panel

HEADS = {
    "asgnet": "fss.heads.asgnet:ASGNet",
    "cwt": "fss.heads.cwt:CWT",
    "prototype": "fss.heads.prototype:Prototype",
}

__all__ = ["HEADS", "Features", "Head", "HeadOutput", "Panel", "build_head", "head_options"]


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
    if not (inspect.isclass(found) and issubclass(found, Head) and found.forward is not Head.forward):
        raise UserError(
            f"head {name!r}: {path} is not a subclass of fss.heads.Head with a forward of its own"
        )
    return found


def head_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All keyword arguments of a head, defaults filled in; checked against its signature and annotations.

    Raises:
        UserError: a keyword that the head does not take, one that it needs, or a value of another type.
    """
    head = find_head(name)
    types = get_type_hints(head.__init__)
    signature = inspect.signature(head).parameters
    known = {k: p for k, p in signature.items() if k != "channels" and p.kind is not p.VAR_KEYWORD}
    for key in options.keys() - known.keys():
        close = difflib.get_close_matches(key, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"head {name!r} takes no {key!r}{hint}; allowed: {', '.join(known)}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
    if missing:
        raise UserError(f"head {name!r} needs {', '.join(missing)}; set head.{missing[0]}=...")
    given = {k: _checked(name, k, v, types.get(k, Any)) for k, v in options.items()}
    return {k: given.get(k, p.default) for k, p in known.items()}


def _checked(head: str, key: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type; YAML reads 1e-3 as a string, which a float annotation turns back."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"head {head!r}: {key}={value!r}: {error.errors()[0]['msg']}") from None


def build_head(name: str, options: dict[str, Any], channels: dict[str, int]) -> Head:
    """Make a head from its name and keyword arguments; `UserError` where it refuses them."""
    arguments = head_options(name, options)
    try:
        return find_head(name)(channels=channels, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"head {name!r}: {error}") from error
