"""Outlines of YOLO: `labels/NAME.txt` for `images/NAME.jpg`, a line an object, in shares of the sides."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fss.data.files import image_size
from fss.data.folder import check_numbering
from fss.data.formats import is_picture
from fss.data.prepare.findings import Findings
from fss.data.prepare.shapes import Drawing, Shape, as_written, class_name
from fss.errors import UserError, why
from fss.reading import load_yaml

_NAMED = ("classes.txt", "obj.names", "README.txt", "requirements.txt", "train.txt", "val.txt", "test.txt")


def label_files(folder: Path) -> list[Path]:
    """The files of labels below a folder: text whose first line is a whole number, then numbers."""
    return [p for p in sorted(folder.rglob("*.txt")) if p.name not in _NAMED and _fits(p)]


def _fits(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline(10_000).split()
        [float(word) for word in first]
    except (OSError, ValueError):
        return False
    return len(first) >= 5 and float(first[0]).is_integer() and float(first[0]) >= 0


def read(
    root: Path, files: list[Path], images: Path | None, findings: Findings
) -> tuple[list[Drawing], list[str]]:
    """The outlines of every file, and all class names; what is wrong with an image goes to `findings`.

    Args:
        root: the folder that holds the names of classes (data.yaml, classes.txt), it or one around it.

    Raises:
        UserError: there are no names.
    """
    names = _names(root, files[0].parent)
    found = []
    for file in [*files, *_beside(files, root, images)]:
        try:
            image = _image(file, root, images)
            h, w = size = image_size(image)
            shapes = [_shape(line, names, (w, h), f"line {n}", file) for n, line in _lines(file)]
            found.append(Drawing(file, image, size, shapes))
        except UserError as error:
            findings.problems.append(str(error))
    return found, names


def _beside(files: list[Path], root: Path, images: Path | None) -> Iterator[Path]:
    """Other text files beside files of labels that a photo belongs to: without an object, or malformed."""
    for folder in dict.fromkeys(file.parent for file in files):
        for path in sorted(folder.glob("*.txt")):
            if path in files or path.name in _NAMED or path.name.startswith("."):
                continue
            try:
                _image(path, root, images)
            except UserError:
                continue  # notes of some kind
            yield path


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({why(error)})") from None
    yield from ((n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip())


def _shape(words: list[str], names: list[str], size: tuple[int, int], where: str, file: Path) -> Shape:
    try:
        number, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise UserError(
            f"{file}, {where}: {' '.join(words)[:60]!r}; wanted a class's number, then x y x y ..., with "
            "blanks between"
        ) from None
    if number not in range(len(names)):
        raise UserError(
            f"{file}, {where}: class {words[0][:20]}; there are 0 to {len(names) - 1}: "
            f"{', '.join(names)[:80]}"
        )
    name = names[int(number)]
    place = f"{where} ({name})"
    if len(values) in (4, 5):
        return Shape(name, "box", [], place)
    if len(values) % 2 or max(map(abs, values), default=0) > 2:
        raise UserError(
            f"{file}, {where}: {len(values)} numbers; wanted pairs x y, in shares (0 to 1) of the sides"
        )
    return Shape(name, "polygon", (np.reshape(values, (-1, 2)) * size).tolist(), place)


def _image(file: Path, root: Path, images: Path | None) -> Path:
    """The photo of a file of labels: in the folder given, in images/ in place of labels/, or beside it."""
    below = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    swapped = Path(*["images" if part == "labels" else part for part in file.parts])
    places = [images / below, images / file.name] if images else [swapped, file]
    for place in places:
        for path in sorted(place.parent.glob(f"{glob.escape(place.stem)}.*")):
            if is_picture(path):
                return path
    raise UserError(
        f"{file}: no image {places[0].stem} in {places[0].parent}; say with --images where they are"
    )


def _names(root: Path, labels: Path) -> list[str]:
    for folder in dict.fromkeys((root, root.parent, labels, labels.parent, labels.parent.parent)):
        for name in ("data.yaml", "data.yml", "dataset.yaml"):
            if (folder / name).is_file():
                return _yaml_names(folder / name)
        if (folder / "classes.txt").is_file():
            return _text_names(folder / "classes.txt")
    raise UserError(
        f"{labels} holds labels of YOLO, which are numbers: put the classes' names beside them, as data.yaml "
        "(names: [cat, dog]) or as classes.txt (one a line)"
    )


def _yaml_names(path: Path) -> list[str]:
    try:
        content: Any = load_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        names = [numbered.get(str(i)) for i in range(len(numbered))]
        if None in names:
            raise UserError(
                f"{path}: names has no class {names.index(None)}; number them from 0 without gaps"
            )
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: names is {as_written(names)}; wanted the classes' names, names: [cat, dog]")
    for name in names:
        if isinstance(name, bool):
            raise UserError(f"{path}: names has yes, no, true, false, on or off, which YAML reads as a truth "
                            "value; write it in quotes")  # fmt: skip
    return _checked([class_name(name, f"{path}: names") for name in names], path)


def _text_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from None
    check_numbering(lines, path)
    return _checked([class_name(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)], path)


def _checked(names: list[str], path: Path) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path} names {twice!r} twice; give each number a name of its own")
    return names
