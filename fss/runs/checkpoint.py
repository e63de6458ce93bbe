"""Checkpoints that say what they are. Written atomically, read without running code in them."""

import json
import math
import os
import shutil
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fss.backbones.weights import load_strict, read_torch
from fss.errors import UserError
from fss.writing import write_text

FORMAT = 1


_FIELDS = {
    "format": int, "about": dict, "facts": dict, "settings": dict, "model": dict, "optimizer": dict,
    "step": int, "spent": float, "best": float, "validated": int,
}  # fmt: skip


def save(path: Path, about: dict[str, Any], model: nn.Module, keep: int = 1, **state: Any) -> None:
    """Write a checkpoint in one go: whoever reads `path` finds the old one or the new one, whole.

    Args:
        keep: files to keep of this name: with 3, the two before it stay as NAME-1.pt and NAME-2.pt.
        about: what it is: stage, data, fold, backbone, head, shots ... plain values only.
        state: what else training needs to go on.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is as it was.
    """
    content = {"format": FORMAT, "about": about, "model": stored(model).state_dict(), **state}
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, half)
        write_text(account_of(path), json.dumps(about, indent=1, default=str) + "\n")
        _shift(path, keep)
        half.replace(path)
    except (OSError, RuntimeError) as error:
        half.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({error}); the one before it, if any, is intact") from None


def account_of(path: Path) -> Path:
    """Where a checkpoint's account stands as JSON, readable without PyTorch: NAME.json."""
    return path.with_suffix(".json")


def _shift(path: Path, keep: int) -> None:
    """Number the files before this one upwards; `path` itself stays until it is replaced."""
    files = [path, *(before(path, i) for i in range(1, keep))]
    for newer, older in reversed(list(pairwise(files))):
        if newer.is_file():
            older.unlink(missing_ok=True)
            try:
                os.link(newer, older)
            except OSError:  # a file system without links
                shutil.copyfile(newer, older)


def before(path: Path, number: int) -> Path:
    """The path of the checkpoint that was written `number` saves ago."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        UserError: missing, truncated, with a wrong checksum, or not written by this project.
    """
    _check_sums(path)
    content = read_torch(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(k), t) for k, t in _FIELDS.items()):
        raise UserError(f"{path} is no checkpoint of fss, or a damaged one; name another, or train anew")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}, this version reads {FORMAT}; train it anew")
    return content


def _check_sums(path: Path) -> None:
    """Hold every part against the checksum beside it, which `torch.load` leaves out."""
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return  # a missing file, or none of ours: `read_torch` says so
    if damaged:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is wrong. {_spare(path)}")


def _spare(path: Path) -> str:
    spare = before(path, 1)
    if spare.is_file():
        return f"Rename {spare.name}, the one before it, to {path.name} to go on from there"
    return "Put a whole one in its place, or move it away to have it made anew"


def best_score(content: dict[str, Any]) -> float | None:
    """Percent of its best validation; None where there was none (converted, or stopped before)."""
    return content["best"] if math.isfinite(content["best"]) else None


def stored(model: nn.Module) -> nn.Module:
    """The part of a model that goes into its files: the whole, if the model does not
    name another (`FewShotModel.stored`)."""
    return getattr(model, "stored", model)


def fill(model: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Load the checkpoint's parameters, strictly and by name."""
    load_strict(stored(model), content["model"], str(path))
