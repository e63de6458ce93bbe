"""Classes that each training image shows: the only labels of weak supervision."""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fss.config import DataConfig
from fss.data.classes import fold_classes
from fss.data.lists import Sample
from fss.data.source import open_source, read_split
from fss.errors import UserError, why


@dataclass(frozen=True)
class LabelledImages:
    """The images of a split with image-level labels.

    Attributes:
        samples: their masks, where there are any, are the true ones; nothing here learns from them.
        base: class ids that are labels; held-out classes are none, whether an image shows them or not.
        base_names: their names.
        present: (images, len(base)) bool.
    """

    samples: list[Sample]
    base: list[int]
    base_names: tuple[str, ...]
    present: np.ndarray

    @property
    def checksum(self) -> str:
        """sha256 of names and labels."""
        text = "\n".join([*self.base_names, *(s.name for s in self.samples)])
        return hashlib.sha256(text.encode() + np.packbits(self.present).tobytes()).hexdigest()


def open_labelled_images(
    config: DataConfig, split: str, file: Path | None = None, cache: Path | None = None
) -> LabelledImages:
    """The images of a split and the base classes that each shows.

    Args:
        file: of labels (`read_labels`); None takes what the true masks show, be it a single pixel.
        cache: as in `open_source`.

    Raises:
        UserError: as `open_source` and `read_labels`.
    """
    config = config.model_copy(update={"train_masks": "true"})
    if file is None:
        source = open_source(config, split, cache)
        present = source.index.pixels[:, source.base] > 0
        return LabelledImages(source.samples, source.base, source.base_names, present)
    samples, classes = read_split(config, split, need_masks=False), fold_classes(config, split)
    every = read_labels(file, [s.name for s in samples], classes.names)
    present = every[:, [c - 1 for c in classes.base]]
    return LabelledImages(samples, classes.base, tuple(classes.trained), present)


def read_labels(path: Path, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Image-level labels from a text file: (images, classes) bool.

    A line holds an image's name, then the classes it shows, if any, separated by commas or tabs; by blanks
    where it has neither.

    Args:
        names: of the images, each of which needs a line.
        classes: allowed class names.

    Raises:
        UserError: an unreadable file, an unknown class, an image that is not in the list or stands there
            twice, or images without a line; the message names file, line and culprit.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"pseudo.labels={path} cannot be read ({why(error)})") from None
    rows, columns = ({name: i for i, name in enumerate(x)} for x in (names, classes))
    present, seen = np.zeros((len(rows), len(columns)), bool), dict[str, int]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        image, *shown = _parts(line)
        where = f"{path} line {number}"
        if image not in rows:
            raise UserError(f"{where}: {image!r} is no image of the list{_nearest(image, names)}")
        if image in seen:
            raise UserError(f"{where}: {image} stands in line {seen[image]} already")
        for name in shown:
            if name not in columns:
                raise UserError(
                    f"{where}: {name!r} is no class{_nearest(name, classes)}; there are: {_some(classes)}"
                )
        seen[image] = number
        present[rows[image], [columns[name] for name in shown]] = True
    missing = [name for name in names if name not in seen]
    if missing:
        raise UserError(
            f"{path} leaves out {len(missing)} of {len(names)} images: {_some(missing)}; give each a line, "
            "with its name alone where it shows no class"
        )
    return present


def _parts(line: str) -> list[str]:
    parts = re.split(r"[,\t]" if re.search(r"[,\t]", line) else r"\s+", line.strip())
    return [part.strip() for part in parts if part.strip()]


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
