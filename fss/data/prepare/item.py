"""One annotated image, whatever the format of its annotation."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np


class Item(NamedTuple):
    """One annotated image.

    Attributes:
        source: the file that holds its annotation; a mask older than that is made anew.
        size: (H,W) that the annotation is for.
        draw: class name -> label in, label map (H,W) uint8 out; raises `UserError` where an annotation
            cannot be drawn.
        content: the image's own file, where it lies in the annotation and nowhere else.
    """

    name: str
    image: Path
    source: Path
    size: tuple[int, int]
    draw: Callable[[dict[str, int]], np.ndarray]
    content: bytes | None = None

    @property
    def file(self) -> Path | BinaryIO:
        """The image, for readers that take a path or an open file."""
        return self.image if self.content is None else io.BytesIO(self.content)


class Annotated(NamedTuple):
    """All items, and the class names that they use, in the order in which new ones get their numbers."""

    items: list[Item]
    classes: list[str]
