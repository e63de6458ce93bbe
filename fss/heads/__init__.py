"""Heads by name. A head of your own is named in YAML by its import path, `my_pkg.my_file:MyHead`."""

import difflib
import functools
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import nn

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

    Modules are looked for in the working folder too, so that a head needs no installation.

    Raises:
        UserError: unknown name, a file that does not import, a class that is no head; names the file.
    """
    path = HEADS.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, HEADS, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown head {name!r}{hint}; allowed: {', '.join(HEADS)}, or package.module:Class")
    module = _import(name, module_name)
    if not hasattr(module, class_name):
        there = [n for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module_name]
        raise UserError(
            f"head {name!r}: {module.__file__} has no class {class_name}; it has {', '.join(there) or 'none'}"
        )
    return _checked_class(name, getattr(module, class_name), str(module.__file__))


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
    """File and line of a failed import that lie outside Python's own machinery; "" if there are none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
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
    for method, count in (("forward", 6), ("encode", 2), ("prepare", 3), ("explain", 5)):
        wanted = inspect.signature(getattr(Head, method))
        try:
            inspect.signature(getattr(found, method)).bind(*range(count))
        except TypeError as error:
            given = inspect.signature(getattr(found, method))
            raise UserError(f"{what}: {method}{given} does not fit {method}{wanted} ({error})") from None
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
        raise UserError(f"{_called(name, head)} takes no {key!r}{hint}; allowed: {', '.join(known)}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
    if missing:
        raise UserError(f"{_called(name, head)} needs {', '.join(missing)}; set head.{missing[0]}=...")
    given = {k: _checked(_called(name, head), k, v, types.get(k, Any)) for k, v in options.items()}
    return {k: given.get(k, p.default) for k, p in known.items()}


def _called(name: str, head: type[Head]) -> str:
    """A head in a message: its name, and its file where it is none of ours."""
    return f"head {name!r}" if name in HEADS else f"head {name!r} ({inspect.getsourcefile(head)})"


def _checked(called: str, key: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type; YAML reads 1e-3 as a string, which a float annotation turns back."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{called}: {key}={value!r}: {error.errors()[0]['msg']}") from None


def build_head(name: str, options: dict[str, Any], channels: dict[str, int]) -> Head:
    """Make a head from its name and keyword arguments; `UserError` where it refuses them."""
    arguments, found = head_options(name, options), find_head(name)
    try:
        head = found(channels=channels, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{_called(name, found)}: {error}") from error
    head.register_forward_hook(functools.partial(_check_output, _called(name, found)))
    return head


def _check_output(called: str, head: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, HeadOutput):
        raise UserError(f"{called}: forward must return a HeadOutput, not {type(output).__name__}")
    episodes = len(inputs[2])
    if output.logits.dim() != 4 or output.logits.shape[:2] != (episodes, 2):
        raise UserError(
            f"{called}: logits must be (B,2,h,w) with B = {episodes}, got {tuple(output.logits.shape)}"
        )
