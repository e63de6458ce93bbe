"""Parts that plug in by name: backbones, necks and heads.

A part is a class, named in a dict literal of import paths (`BACKBONES`, `NECKS`, `HEADS`) or by its own
import path, `my_pkg.my_file:MyClass`. All other settings of its section are keyword arguments of its
constructor, whose signature alone holds their defaults.
"""

import difflib
import importlib
import inspect
import math
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from fss.errors import UserError, rule


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    Attributes:
        name: "backbone", "neck" or "head": the section of the configuration, and the word in messages.
        table: name -> import path, package.module:Class.
        base: the class that all parts of this kind derive from.
        given: arguments of the constructor that come from the network and are no settings.
        offered: further such arguments, which a constructor may take.
        prefixes: a name's beginning, up to its colon -> import path, for whole families such as `timm:NAME`;
            the rest of the name is the constructor's first argument.
    """

    name: str
    table: Mapping[str, str]
    base: type
    given: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    prefixes: Mapping[str, str] | None = None

    def find(self, name: str) -> type:
        """The class that `name` means; modules are looked for in the working folder too.

        Raises:
            UserError: an unknown name (with the nearest one), a file that does not import, a class that is
                none of this kind; names the file.
        """
        path = self.table.get(name) or self._family(name) or name
        if ":" not in path:
            also = "".join(f", {prefix}:NAME" for prefix in self.prefixes or ())
            raise UserError(
                f"unknown {self.name} {name!r}{nearest(name, self.table)}; allowed: "
                f"{', '.join(self.table)}{also}, or package.module:Class"
            )
        found, file = import_class(self.name, path)
        if not (inspect.isclass(found) and issubclass(found, self.base)):
            shown = getattr(found, "__name__", found)
            raise UserError(
                f"{self.name} {name!r}: {shown} in {file} is no subclass of "
                f"{self.base.__module__.rpartition('.')[0]}.{self.base.__name__}"
            )
        lacking = [argument for argument in self.given if argument not in inspect.signature(found).parameters]
        if lacking:
            raise UserError(
                f"{self.called(name, found)}: __init__ must take {lacking[0]}, and hand it on: "
                f"super().__init__({lacking[0]}, ...)"
            )
        return found

    def options(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a part, defaults filled in; checked against its signature and annotations.

        Raises:
            UserError: a setting that the part does not take, one that it needs, or a value of another type.
        """
        found = self.find(name)
        called = self.called(name, found)
        known = self._settings(name, found)
        for key in options.keys() - known.keys():
            allowed = ", ".join(known) or "none"
            raise UserError(f"{called} takes no {key!r}{nearest(key, known)}; allowed: {allowed}")
        missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
        if missing:
            raise UserError(f"{called} needs {', '.join(missing)}; set {self.name}.{missing[0]}=...")
        types = _types(found)
        given = {k: _checked(f"{called}: {k}", v, types.get(k, Any)) for k, v in options.items()}
        every = {k: given.get(k, p.default) for k, p in known.items()}
        for key, value in every.items():
            if not _plain(value):
                raise UserError(
                    f"{called}: {key}={value!r} is no plain value. Checkpoints and results keep a "
                    f"{self.name}'s options: numbers, strings, lists and mappings are allowed"
                )
        return every

    def make(
        self, name: str, options: Mapping[str, Any], make: Callable[..., Any] | None = None, **given: Any
    ) -> Any:
        """The part itself, from its settings and what the network gives it.

        Args:
            make: called in place of the class, with the same arguments.
            given: what the network gives; of `offered`, a constructor gets what it takes.

        Raises:
            UserError: as `options`, or the constructor refuses its arguments; one line, which names the part.
        """
        found, arguments = self.find(name), self.options(name, options)
        taken = inspect.signature(found).parameters
        given = {k: v for k, v in given.items() if k not in self.offered or k in taken}
        called = self.called(name, found)
        family = [name.partition(":")[2]] if self._family(name) else []
        try:
            return (make or found)(*family, **given, **arguments)
        except UserError:
            raise
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise UserError(f"{called}: {str(error).splitlines()[0]}") from error
        except (AttributeError, KeyError) as error:
            raise UserError(
                f"{called}: __init__ fails with {error!r}; it must begin with "
                f"super().__init__({', '.join(self.given)})"
            ) from error

    def called(self, name: str, found: type) -> str:
        """A part in a message: its name, and its file where it is none of the project's."""
        ours = name in self.table or self._family(name)
        return f"{self.name} {name!r}" + ("" if ours else f" ({inspect.getsourcefile(found)})")

    def _family(self, name: str) -> str | None:
        prefix, colon, rest = name.partition(":")
        return (self.prefixes or {}).get(prefix) if colon and rest else None

    def _settings(self, name: str, found: type) -> dict[str, inspect.Parameter]:
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        parameters = inspect.signature(found).parameters
        taken = {*self.given, *self.offered, *list(parameters)[: 1 if self._family(name) else 0]}
        return {k: p for k, p in parameters.items() if k not in taken and p.kind not in open_ended}


def check_methods(kind: Kind, name: str, methods: Mapping[str, int]) -> None:
    """Hold a part's methods against those of its base class.

    Args:
        methods: name -> how many positional arguments it is called with, `self` among them.

    Raises:
        UserError: a method that cannot be called so; names the class and its file.
    """
    found: Any = kind.find(name)
    called = kind.called(name, found)
    for method, count in methods.items():
        wanted, own = inspect.signature(getattr(kind.base, method)), getattr(found, method)
        if not callable(own):
            raise UserError(f"{called}: {method} must be a method{wanted}")
        try:
            inspect.signature(own).bind(*range(count))
        except TypeError as error:
            given = inspect.signature(own)
            raise UserError(f"{called}: {method}{given} does not fit {method}{wanted} ({error})") from None


def nearest(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """`, did you mean NAME?` for the nearest of `names`, or nothing."""
    folded = {str(each).casefold(): each for each in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    return f", did you mean {folded[close[0]]}?" if close else ""


def import_class(kind: str, path: str) -> tuple[Any, str]:
    """The object at `path`, package.module:Class, and its file; looked for in the working folder too.

    Raises:
        UserError: the file does not import, or holds no such name; names the file.
    """
    module_name, _, class_name = path.partition(":")
    module = _import(f"{kind} {path!r}", module_name)
    file = str(getattr(module, "__file__", module_name))
    if not hasattr(module, class_name):
        there = [n for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module_name]
        raise UserError(
            f"{kind} {path!r}: {file} has no class {class_name}; it has {', '.join(there) or 'none'}"
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


def _types(part: Any) -> dict[str, Any]:
    try:
        return get_type_hints(part.__init__)
    except Exception:  # annotations are a service: names that cannot be resolved are not checked
        return {}


def _checked(called: str, value: Any, annotation: Any) -> Any:
    """`value` as the annotated type; YAML reads 1e-3 as a string, which a float annotation turns back."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except PydanticUserError:  # a type that pydantic knows nothing of
        return value
    except ValidationError as error:
        raise UserError(f"{called}={value!r}: {rule(error.errors()[0])}") from None


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)
