"""Importing a head by its path, and telling what is wrong with its file."""

import importlib
import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from fss.errors import UserError
from fss.heads.base import Head


def import_head(name: str, module_name: str, class_name: str) -> type[Head]:
    """The class `class_name` of a module, looked for in the working folder too.

    Args:
        name: what the configuration calls the head, for messages.

    Raises:
        UserError: the file does not import, or its class does not keep the contract; names the file.
    """
    module = _import(name, module_name)
    file = str(getattr(module, "__file__", module_name))
    if not hasattr(module, class_name):
        there = [n for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module_name]
        raise UserError(
            f"head {name!r}: {file} has no class {class_name}; it has {', '.join(there) or 'none'}"
        )
    return _checked_class(name, getattr(module, class_name), file)


def _import(name: str, module: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except Exception as error:  # a user's file can fail in any way
        where = _place(error)
        hint = f". Run from the folder that holds {module.partition('.')[0]}" if not where else ""
        raise UserError(
            f"head {name!r}: cannot import {where or module} ({type(error).__name__}: {error}){hint}"
        ) from error


def _place(error: BaseException) -> str:
    """The user's file and line in a failed import, not those of a package it calls; "" if there are none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    run = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    packages = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in run if not f.filename.startswith(packages)] or run[:1]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


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
