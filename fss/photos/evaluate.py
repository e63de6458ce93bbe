"""How good masks of one's own photos will be: each annotated photo in turn is the query of all others."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw
from tabulate import tabulate

from fss.bars import Bar
from fss.episode import IGNORE
from fss.errors import UserError
from fss.photos.annotations import Annotated, Support, named
from fss.photos.prediction import Prediction, overlay
from fss.photos.predictor import Predictor, photo_numbers
from fss.photos.side_by_side import side_by_side
from fss.writing import write_bytes, write_text

PICTURED = 12  # photos in the picture of the worst
_FEW = 5  # photos of a class below which its score says little
_POOR = 40  # IoU, percent, below which masks are of little use
_HEIGHT = 240  # pixels of a picture in it


@dataclass
class Score:
    """A class over the photos that show it.

    Attributes:
        both, either: pixels found and true, pixels found or true, a number a photo.
        photos: their names.
    """

    both: list[int] = field(default_factory=list)
    either: list[int] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)

    @property
    def iou(self) -> float:
        """IoU over all pixels of all photos, percent."""
        return 100 * sum(self.both) / max(sum(self.either), 1)

    @property
    def of_photos(self) -> list[float]:
        """IoU of each photo, percent."""
        return [100 * b / max(e, 1) for b, e in zip(self.both, self.either, strict=True)]

    def add(self, name: str, found: np.ndarray, truth: np.ndarray) -> float:
        """Count a photo: a mask (H,W) bool, and the true one (H,W) of 0, 1 and 255; returns its IoU."""
        known = truth != IGNORE
        self.both.append(int((found & (truth == 1)).sum()))
        self.either.append(int(((found | (truth == 1)) & known).sum()))
        self.photos.append(name)
        return self.of_photos[-1]


@dataclass(frozen=True)
class Result:
    """A photo, a class's true mask (H,W) of 0, 1 and 255, the predicted one (H,W) bool, IoU in percent."""

    name: str
    class_name: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    iou: float


def evaluate(
    predictor: Predictor, supports: Sequence[Support], threshold: float | None = None,
    tile: Any = "auto", quiet: bool = False,
) -> tuple[dict[str, Score], list[Result]]:  # fmt: skip
    """Scores by class, and the worst photos, worst first.

    Args:
        threshold: as of `fss predict`; None: chosen on the other supports.
        tile: as of `Predictor.learn`.

    Raises:
        UserError: fewer than two photos show any class.
    """
    supports = named(supports)
    predictor.learn(supports, tile, leave_one_out=False)
    numbers = photo_numbers(supports)
    scores: dict[str, Score] = defaultdict(Score)
    worst: list[Result] = []
    different = dict.fromkeys(numbers)
    of_photo = {n: [s for s, m in zip(supports, numbers, strict=True) if m == n] for n in different}
    # Strokes become masks by the global generators, so that photos are read one after another.
    read = ((n, of_photo[n][0].title, predictor.annotation(of_photo[n])) for n in different)
    every = side_by_side(partial(_left_out, predictor, threshold), read, predictor.device)
    bar = Bar(every, "photos", total=len(different), leave=False, disable=True if quiet else None)
    for results in bar:
        for one in results:
            iou = scores[one.class_name].add(one.name, one.predicted, one.truth)
            worst.append(replace(one, iou=iou))
        worst = sorted(worst, key=lambda result: result.iou)[:PICTURED]
    if not scores:
        raise UserError(
            "no class has two annotated photos, and leaving one out needs another: annotate at least two "
            "photos of one class"
        )
    return {name: scores[name] for name in predictor.classes if name in scores}, worst


def _left_out(
    predictor: Predictor, threshold: float | None, photo: tuple[int, str, Annotated]
) -> list[Result]:
    """The classes of a photo (its number, name and masks) segmented by all other photos; IoU is left at 0."""
    number, title, (image, truths) = photo
    others = predictor.without(number, leave_one_out=threshold is None)
    if others is None or not set(truths) & set(others.classes):
        return []
    masks = _masks(others(image), 0.5 if threshold is None else threshold)
    return [Result(title, n, image, truths[n], found, 0) for n, found in masks.items() if n in truths]


def run_evaluation(
    predictor: Predictor, supports: Sequence[Support], out: Path, threshold: float | None, tile: Any
) -> None:
    """Evaluate, print a table, and write evaluation.json and worst.jpg into `out`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the results")
    scores, worst = evaluate(predictor, supports, threshold, tile)
    print(as_text(scores))
    alone = [name for name in predictor.classes if name not in scores]
    if alone:
        print(f"left out, because one photo alone shows it: {', '.join(alone)}")
    told = {
        name: {"iou": round(s.iou, 2), "photos": dict(zip(s.photos, np.round(s.of_photos, 2), strict=True))}
        for name, s in scores.items()
    }
    write_text(out / "evaluation.json", json.dumps(told, indent=1, ensure_ascii=False, default=float) + "\n")
    write_bytes(out / "worst.jpg", _jpeg(worst_picture(worst)))
    print(f"\ntrue masks beside predictions, worst first: {out / 'worst.jpg'}")


def as_text(scores: dict[str, Score]) -> str:
    """A table of the classes, and what to make of it."""
    rows = [
        [
            name,
            len(s.photos),
            f"{s.iou:.1f}",
            f"{min(s.of_photos):.1f}",
            s.photos[int(np.argmin(s.of_photos))],
        ]
        for name, s in scores.items()
    ]
    lines = [tabulate(rows, ["class", "photos", "IoU", "worst", "its photo"], disable_numparse=True)]
    lines.append(
        "IoU in percent, each photo segmented by all others; new photos like these will do about as well"
    )
    few = [name for name, s in scores.items() if len(s.photos) < _FEW]
    if few:
        lines.append(f"fewer than {_FEW} photos, so that the number says little: {', '.join(few)}")
    poor = [name for name, s in scores.items() if s.iou < _POOR]
    if poor:
        lines.append(
            f"below {_POOR}, so that masks will be of little use: {', '.join(poor)}. Supports that look more "
            "like the photos help most, then more of them; for small objects, photos from nearer"
        )
    return "\n".join(lines)


def worst_picture(worst: Sequence[Result]) -> np.ndarray:
    """Rows of two photos, each with true mask and prediction, class and IoU; (H,W,3) RGB uint8."""
    made = [_pair(result) for result in worst]
    wide = max(pair.shape[1] for pair in made)
    made = [np.pad(p, ((0, 0), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in made]
    made += [np.full_like(made[0], 255)] * (len(made) % 2)
    return np.concatenate([np.concatenate(made[i : i + 2], 1) for i in range(0, len(made), 2)])


def _pair(result: Result) -> np.ndarray:
    size = (max(round(result.image.shape[1] * _HEIGHT / result.image.shape[0]), 1), _HEIGHT)
    image = cv2.resize(result.image, size, interpolation=cv2.INTER_AREA)
    panels = []
    for mask in (result.truth == 1, result.predicted):
        labels = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        panels.append(np.pad(overlay(image, labels, ["1"]), ((0, 0), (0, 6), (0, 0)), constant_values=255))
    page = np.pad(np.concatenate(panels, 1), ((22, 8), (0, 8), (0, 0)), constant_values=255)
    text = f"{result.class_name}  IoU {result.iou:.0f}  {Path(result.name).name}: true mask, prediction"
    return _titled(page, text)


def _titled(page: np.ndarray, text: str) -> np.ndarray:
    picture = Image.fromarray(page)
    plain = text.encode("ascii", "replace").decode()  # the built-in font has few other letters
    ImageDraw.Draw(picture).text((2, 4), plain, fill="black", font_size=13)
    return np.array(picture)


def _masks(found: Prediction, threshold: float) -> dict[str, np.ndarray]:
    labels = found.labels(threshold)
    return {name: labels == value for name, value in zip(found.classes, found.values, strict=True)}


def _jpeg(page: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))[1].tobytes()
