"""A head by its import path, and telling what is wrong with its class."""

import inspect
from typing import Any

from fss.errors import UserError
from fss.heads.base import Head
from fss.outside import import_class


def import_head(name: str, path: str) -> type[Head]:
    """The class of `path`, package.module:Class, looked for in the working folder too.

    Args:
        name: what the configuration calls the head, for messages.

    Raises:
        UserError: the file does not import, or its class does not keep the contract; names the file.
    """
    found, file = import_class("head", path)
    return _checked_class(name, found, file)


def _checked_class(name: str, found: Any, file: str) -> type[Head]:
    """`found`, if it keeps the contract as far as its signatures tell."""
    what = f"head {name!r}: {getattr(found, '__name__', found)} in {file}"
    if not (inspect.isclass(found) and issubclass(found, Head)):
        raise UserError(f"{what} is no subclass of fss.heads.Head")
    if found.forward is Head.forward:
        raise UserError(
            f"{what} has no method forward(query, support, support_masks, extras, query_mask=None)"
        )
    if "channels" not in inspect.signature(found).parameters:
        raise UserError(f"{what}: __init__ must take channels, and hand it on: super().__init__(channels)")
    if not (isinstance(found.levels, tuple | list) and found.levels):
        raise UserError(f"{what}: levels must name one feature map or more, got {found.levels!r}")
    for method, count in (("forward", 6), ("encode", 2), ("prepare", 3), ("explain", 5)):
        wanted = inspect.signature(getattr(Head, method))
        if not callable(getattr(found, method)):
            raise UserError(f"{what}: {method} must be a method{wanted}")
        try:
            inspect.signature(getattr(found, method)).bind(*range(count))
        except TypeError as error:
            given = inspect.signature(getattr(found, method))
            raise UserError(f"{what}: {method}{given} does not fit {method}{wanted} ({error})") from None
    return found
