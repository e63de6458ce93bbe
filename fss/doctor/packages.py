"""Checks of packages; the metadata of the installed fss tells which it needs."""

import importlib
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from fss.doctor.item import Item, State, guarded, reason

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SECTION = "packages"
# Modules whose names differ from those of their packages.
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
TOGETHER = ("torch", "torchvision")  # are reinstalled together, because their versions must fit


def packages() -> list[Item]:
    """Items on required packages, which are imported, and on extras, which are not."""
    return guarded(SECTION, "needed", _needed) + guarded(SECTION, "extras", _extras)


def _needed() -> Iterator[Item]:
    for wanted in requirements():
        if wanted.marker is None:
            yield from guarded(SECTION, wanted.name, required, wanted)


def requirements() -> list["Requirement"]:
    """The requirements of the installed fss; those of extras have a marker.

    Raises:
        PackageNotFoundError: fss runs from a folder and is not installed.
    """
    from packaging.requirements import Requirement

    return [Requirement(text) for text in metadata.requires("fss") or []]


def required(wanted: "Requirement") -> list[Item]:
    """The item on one package that fss needs."""
    name = wanted.name
    module = MODULES.get(name, name.replace("-", "_"))
    again = "pip install --force-reinstall " + " ".join(TOGETHER if name in TOGETHER else [name])
    try:
        found = importlib.import_module(module)
    except (
        Exception
    ) as error:  # a missing module, a library that does not load, two packages that do not fit, ...
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return [Item(SECTION, name, "missing", "not installed", f'pip install "{wanted}"')]
        return [Item(SECTION, name, "broken", f"cannot be imported: {reason(error)}", again)]
    version = str(getattr(found, "__version__", "") or _version(name))
    if version and not _fits(wanted, version):
        text = f"{version} is there, wanted is {wanted.specifier}"
        return [Item(SECTION, name, "missing", text, f'pip install "{wanted}"')]
    return [Item(SECTION, name, "ok", version or "version unknown")]


def _extras() -> Iterator[Item]:
    """One item for each extra that is for users; `dev` is for developers, `all` holds the others."""
    for extra in sorted({*(metadata.metadata("fss").get_all("Provides-Extra") or ())} - {"all", "dev"}):
        parts = [r for r in requirements() if r.marker and r.marker.evaluate({"extra": extra})]
        found = {r.name: _version(r.name) for r in parts}
        lacking = [f"{r.name}{r.specifier}" for r in parts if not _fits(r, found[r.name])]
        there = ", ".join(f"{name} {version}" for name, version in found.items() if version)
        state: State = "optional" if lacking else "ok"
        text = (there or "not installed") + (f"; wanted: {', '.join(lacking)}" if lacking else "")
        fix = "pip install " + " ".join(f'"{asked}"' for asked in lacking) if lacking else ""
        yield Item(SECTION, f"[{extra}]", state, text, fix)


def _fits(wanted: "Requirement", version: str) -> bool:
    return bool(version) and wanted.specifier.contains(version, prereleases=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
