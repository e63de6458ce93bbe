"""Heads by name. A head of your own is named in YAML by its import path, `my_pkg.my_file:MyHead`."""

import difflib
import functools
import inspect
import math
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from torch import Tensor, nn

from fss.errors import UserError
from fss.heads.base import Features, Head, HeadOutput, Panel
from fss.heads.outside import import_head

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
    if ":" not in path:
        close = difflib.get_close_matches(name, HEADS, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown head {name!r}{hint}; allowed: {', '.join(HEADS)}, or package.module:Class")
    return import_head(name, path)


def head_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All keyword arguments of a head, defaults filled in; checked against its signature and annotations.

    Raises:
        UserError: a keyword that the head does not take, one that it needs, or a value of another type.
    """
    head = find_head(name)
    signature = inspect.signature(head).parameters
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {k: p for k, p in signature.items() if k != "channels" and p.kind not in open_ended}
    for key in options.keys() - known.keys():
        close = difflib.get_close_matches(key, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise UserError(f"{_called(name, head)} takes no {key!r}{hint}; allowed: {', '.join(known)}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
    if missing:
        raise UserError(f"{_called(name, head)} needs {', '.join(missing)}; set head.{missing[0]}=...")
    types, called = _types(head), _called(name, head)
    given = {k: _checked(called, k, v, types.get(k, Any)) for k, v in options.items()}
    every = {k: given.get(k, p.default) for k, p in known.items()}
    for key, value in every.items():
        if not _plain(value):
            raise UserError(
                f"{called}: {key}={value!r} is no plain value. Checkpoints and results keep a head's "
                "options: numbers, strings, lists and mappings are allowed"
            )
    return every


def _types(head: type[Head]) -> dict[str, Any]:
    try:
        return get_type_hints(head.__init__)
    except Exception:  # annotations are a service: names that cannot be resolved are not checked
        return {}


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def _called(name: str, head: type[Head]) -> str:
    """A head in a message: its name, and its file where it is none of ours."""
    return f"head {name!r}" if name in HEADS else f"head {name!r} ({inspect.getsourcefile(head)})"


def _checked(called: str, key: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type; YAML reads 1e-3 as a string, which a float annotation turns back."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except PydanticUserError:  # a type that pydantic knows nothing of
        return value
    except ValidationError as error:
        raise UserError(f"{called}: {key}={value!r}: {error.errors()[0]['msg']}") from None


def build_head(name: str, options: dict[str, Any], channels: dict[str, int]) -> Head:
    """Make a head from its name and keyword arguments; `UserError` where it refuses them."""
    arguments, found = head_options(name, options), find_head(name)
    try:
        head = found(channels=channels, **arguments)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: layers beyond memory
        raise UserError(f"{_called(name, found)}: {str(error).splitlines()[0]}") from error
    except (AttributeError, KeyError) as error:
        raise UserError(
            f"{_called(name, found)}: __init__ fails with {error!r}; it must begin with "
            f"super().__init__(channels), and channels has {', '.join(channels)}"
        ) from error
    head.register_forward_hook(functools.partial(_check_output, _called(name, found)))
    return head


def _check_output(called: str, head: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, HeadOutput):
        raise UserError(f"{called}: forward must return a HeadOutput, not {type(output).__name__}")
    episodes, logits = len(inputs[2]), output.logits
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise UserError(f"{called}: logits must be a floating point tensor, got {type(logits).__name__}")
    if logits.dim() != 4 or logits.shape[:2] != (episodes, 2) or 0 in logits.shape:
        raise UserError(f"{called}: logits must be (B,2,h,w) with B = {episodes}, got {tuple(logits.shape)}")
    for what, values, shape in (("losses", output.losses, ()), ("notes", output.notes, (episodes,))):
        if not isinstance(values, dict):
            raise UserError(f"{called}: {what} must be a dict, got {type(values).__name__}")
        for key, value in values.items():
            if not isinstance(value, Tensor) or value.shape != shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                raise UserError(f"{called}: {what}[{key!r}] must be a tensor of shape {shape}, got {got}")
