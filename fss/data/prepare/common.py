"""Parts that all preparations share: masks made once, files written in one go, problems counted."""

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fss.bars import Bar
from fss.data.files import check_image
from fss.errors import UserError, why
from fss.fetching import fetch


@dataclass
class Prepared:
    """The data root, the images of every list written, and lines to print, as of `Findings`."""

    root: Path
    lists: dict[str, int] = field(default_factory=dict)
    made: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def write_mask(
    path: Path, image: Path, draw: Callable[[], np.ndarray], size: tuple[int, int] | None = None,
    keep: bool = True,
) -> str | None:  # fmt: skip
    """Draw and write the mask of an image whose file is whole.

    Files appear complete or not at all, so that a run that was stopped goes on with what is missing.

    Args:
        draw: makes the label map (H,W) uint8; may raise `UserError`.
        size: (H,W) that the annotation is for, where that is known before it is drawn.
        keep: take a mask that is there for the right one; else draw it and compare.

    Returns:
        None where it was there, "" where it was made, else what is wrong.
    """
    try:
        if keep and path.is_file():
            return None
        wanted = check_image(image)
        _same_size(image, wanted, size or wanted)  # before anything of another size is drawn
        mask = draw()
        _same_size(image, wanted, (mask.shape[0], mask.shape[1]))
        Image.fromarray(mask).save(png := io.BytesIO(), "PNG")
        return write(path, png.getvalue())
    except UserError as error:
        return str(error)
    except (ValueError, MemoryError) as error:
        return f"{image}: its annotation cannot be drawn ({error})"


def _same_size(image: Path, wanted: tuple[int, int], found: tuple[int, int]) -> None:
    if found != wanted:
        raise UserError(f"{image} is {wanted[1]}x{wanted[0]}, its annotation {found[1]}x{found[0]}")


def name_problem(name: str) -> str | None:
    """The error of an image's name, or None: it must stand in a line of a list, and name a file."""
    if not name or name != name.strip() or not name.isprintable() or len(name) > 200:
        return f"{name[:80]!r} is no name for an image: blank, unprintable, or with spaces around; rename it"
    if name.startswith("/") or ".." in Path(name).parts:
        return f"{name[:80]!r} leads out of its folder"
    return None


def tally(found: Prepared, names: Iterable[str], outcomes: Iterable[str | None], title: str) -> set[str]:
    """Add up what `write_mask` said of each name, with progress; returns the names that have a mask now."""
    names, good = list(names), set()
    for name, problem in zip(names, Bar(outcomes, title, len(names)), strict=True):
        found.kept += problem is None
        found.made += problem == ""
        if problem:
            found.problems.append(problem)
        else:
            good.add(name)
    return good


def write_list(found: Prepared, path: Path, lines: Iterable[str]) -> None:
    """A list file, one line an image, sorted."""
    ordered = sorted(lines)
    write(path, "".join(f"{line}\n" for line in ordered).encode())
    found.lists[path.name] = len(ordered)


def write(path: Path, data: bytes) -> str | None:
    """A file in one go: a run that is killed leaves none half-written.

    Returns:
        None where the file was there with just this content, else "".
    """
    if path.is_file() and path.read_bytes() == data:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")  # one name, so that the next run leaves no stray parts either
    half.write_bytes(data)
    half.replace(path)
    return ""


def load_json(path: Path) -> Any:
    """A JSON file's content, in UTF-8 or UTF-16.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise UserError(f"{path} is no annotation: its lists are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({why(error)}); export it again") from None


def find_part(root: Path, inner: str, part: str, hint: str) -> Path:
    """`root` or `root/inner`, whichever holds `part`; `UserError` ends with `hint`."""
    for folder in (root, root / inner):
        if (folder / part).is_dir():
            return folder
    raise UserError(f"no {part}/ in {root} or {root / inner}. {hint}")


def fetch_zip(url: str, root: Path, part: str) -> None:
    """Download an archive and unpack its folder `part` into `root`, each complete or not at all.

    Raises:
        UserError: no network, or what came is no archive.
    """
    if (root / part).exists():
        return
    archive = fetch(url, root / url.rpartition("/")[2])
    try:
        unpacked = root / f".{part}.part"
        with zipfile.ZipFile(archive) as content:
            content.extractall(unpacked)
        (unpacked / part).replace(root / part)
        unpacked.rmdir()
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{archive} cannot be unpacked ({error}); delete it to have it fetched anew"
        ) from None
