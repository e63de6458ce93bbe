"""A class of a user's own by its import path, `my_pkg.my_file:MyClass`, and what is wrong with its file."""

import importlib
import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from fss.errors import UserError


def import_class(kind: str, name: str) -> tuple[Any, str]:
    """What stands under `name`, package.module:Class, and its file; looked for in the working folder too.

    Args:
        kind: what it is to be, for messages: "head", "neck".

    Raises:
        UserError: the file does not import, or holds no such name; names the file.
    """
    module_name, _, class_name = name.partition(":")
    module = _import(f"{kind} {name!r}", module_name)
    file = str(getattr(module, "__file__", module_name))
    if not hasattr(module, class_name):
        there = [n for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module_name]
        raise UserError(
            f"{kind} {name!r}: {file} has no class {class_name}; it has {', '.join(there) or 'none'}"
        )
    return getattr(module, class_name), file


def _import(what: str, module: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except Exception as error:  # a user's file can fail in any way
        where = _place(error)
        hint = f". Run from the folder that holds {module.partition('.')[0]}" if not where else ""
        raise UserError(
            f"{what}: cannot import {where or module} ({type(error).__name__}: {error}){hint}"
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
