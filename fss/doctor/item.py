"""A finding of one line, and checks that cannot fail themselves."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

State = Literal["ok", "optional", "warning", "missing", "broken"]
FATAL = ("missing", "broken")


class Item(NamedTuple):
    """The finding on one thing.

    Attributes:
        section: the heading that it stands under.
        state: "ok"; "optional" (not there, and nothing needs it); "warning" (works, but not well);
            "missing" and "broken" (fss does not work).
        fix: what to do about it, a command if there is one; "" if nothing need be done.
    """

    section: str
    name: str
    state: State
    detail: str
    fix: str = ""


def guarded(section: str, name: str, check: Callable[..., Iterable[Item]], *arguments: object) -> list[Item]:
    """The items of a check; if it fails, one item that says why."""
    try:
        return list(check(*arguments))
    except Exception as error:  # a broken installation can fail in any way
        return [Item(section, name, "warning", f"could not be looked at: {reason(error)}")]


def reason(error: BaseException) -> str:
    """The kind and first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}".removesuffix(": ")


def shown(path: Path | str) -> str:
    """A path for reports: the home folder, whose name is often a person's, is written `~`."""
    path = Path(path)
    return str("~" / path.relative_to(Path.home())) if path.is_relative_to(Path.home()) else str(path)
