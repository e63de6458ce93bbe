"""A segmented photo: one map of log-odds a class, fused when it is looked at."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from fss.data.files import png_bytes
from fss.episode import IGNORE
from fss.errors import UserError
from fss.pictures.marks import palette
from fss.pictures.overlay import file_name
from fss.pictures.tint import tint
from fss.writing import write_bytes

COLOURS = palette()
COLOURS[0], COLOURS[1] = (0, 0, 0), (0, 90, 255)


@dataclass(frozen=True)
class Prediction:
    """A network's answer to a photo. Sizes are the photo's own, H x W.

    Attributes:
        image: (H,W,3) RGB uint8.
        classes: N names.
        odds: (N,h,w) float32, log-odds of each class against background; at network size, or at the photo's
            where it was segmented in tiles.
    """

    image: np.ndarray
    classes: list[str]
    odds: np.ndarray

    @property
    def values(self) -> list[int]:
        """Labels of the classes in the fused map: their names where these are a mask's labels, else 1..N."""
        return values_of(self.classes)

    def probability(self, number: int = 0) -> np.ndarray:
        """The probability of one class, (H,W) float32 from 0 to 1."""
        return 1 / (1 + np.exp(-self._odds(number)))

    def labels(self, threshold: float = 0.5) -> np.ndarray:
        """The fused map (H,W) uint8: 0 where no class is likelier than `threshold`, else the likeliest.

        Raises:
            UserError: a threshold that is no probability.
        """
        check_threshold(threshold)
        best = np.full(self.image.shape[:2], math.log(threshold / (1 - threshold)), np.float32)
        out = np.zeros(best.shape, np.uint8)
        for number in range(len(self.classes)):
            odds = self._odds(number)
            lead = odds > best
            out[lead], best[lead] = self.values[number], odds[lead]
        return out

    def overlay(self, threshold: float = 0.5) -> np.ndarray:
        """The photo with its classes in colours, outlined, and their names, (H,W,3) RGB uint8."""
        return overlay(self.image, self.labels(threshold), self.classes)

    def save(self, folder: Path | str, stem: str, threshold: float = 0.5) -> list[Path]:
        """Write STEM_labels.png, STEM_overlay.jpg, and a mask and a probability of each class, as PNG.

        Returns:
            the files written, each of them whole or not there.
        """
        folder, labels = Path(folder), self.labels(threshold)
        files = {
            "labels.png": png_bytes(labels, COLOURS.tobytes()),
            "overlay.jpg": _jpeg(overlay(self.image, labels, self.classes)),
        }
        for number, name in enumerate(self.classes):
            mask = np.where(labels == self.values[number], 255, 0).astype(np.uint8)
            files[f"mask_{file_name(name)}.png"] = png_bytes(mask)
            share = (255 * self.probability(number)).round().astype(np.uint8)
            files[f"probability_{file_name(name)}.png"] = png_bytes(share)
        paths = []
        for name, content in files.items():
            paths.append(folder / f"{stem}_{name}")
            write_bytes(paths[-1], content)
        return paths

    def _odds(self, number: int) -> np.ndarray:
        """The log-odds (H,W) of one class."""
        height, width = self.image.shape[:2]
        return enlarge(self.odds[number], (height, width))


def values_of(classes: list[str]) -> list[int]:
    """Labels of classes: the names themselves if all are whole numbers from 1 to 254, else 1..N."""
    if all(name.isascii() and name.isdigit() and 1 <= int(name) < IGNORE for name in classes):
        return [int(name) for name in classes]
    return list(range(1, len(classes) + 1))


def check_threshold(threshold: float) -> None:
    """Raise `UserError` unless a threshold is a probability that can be passed."""
    if not 0 < threshold < 1:
        raise UserError(f"threshold {threshold}; allowed: above 0 and below 1")


def overlay(image: np.ndarray, labels: np.ndarray, classes: list[str]) -> np.ndarray:
    """A photo (H,W,3) with labels (H,W) over it as of `tint`; with names where there are several classes."""
    out = tint(image, labels, COLOURS)
    return _with_names(out, classes) if len(classes) > 1 else out


def _with_names(picture: np.ndarray, classes: list[str]) -> np.ndarray:
    """Write colours and names from the top left down, as many as fit."""
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    tall = max(round(min(picture.shape[:2]) / 24), 10)
    for row, (value, name) in enumerate(zip(values_of(classes), classes, strict=True)):
        top = tall // 2 + row * round(1.6 * tall)
        if top + tall > picture.shape[0]:
            break
        text = name if name.isascii() else f"class {value}"  # the built-in font has few other letters
        colour = tuple(COLOURS[value].tolist())
        draw.rectangle((tall // 2, top, tall // 2 + tall, top + tall), fill=colour, outline="white")
        at = (2 * tall, top + tall // 2)
        draw.text(
            at,
            text,
            fill="white",
            stroke_fill="black",
            stroke_width=max(tall // 12, 1),
            font_size=tall,
            anchor="lm",
        )
    return np.array(page)


def enlarge(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of (h,w) float32 to (H,W), the inverse of the test resize."""
    if values.shape == size:
        return values
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
