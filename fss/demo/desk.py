"""The desk of one visitor of the page: photos, marks and results. No layout."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from fss.data.photos import read_photo
from fss.demo.drawing import LONGEST, Way, shrunk, strokes, support
from fss.demo.models import Models
from fss.errors import UserError
from fss.photos.annotations import Support, read_support
from fss.photos.prediction import COLOURS, Prediction, overlay
from fss.photos.tiles import Tile

View = Literal["overlay", "mask", "probability"]
SEED = 2021  # the seed of masks made from strokes, as `Predictor`'s


@dataclass(eq=False)
class Photo:
    """A photo that was dropped.

    Attributes:
        size: (H,W) of the file.
        small: what the browser shows, (h,w,3) uint8.
        support: it and its mask, once it is marked; `mask` the same as small (h,w) bool.
        drawn: layers of the editor, to go on from.
        way: how they were meant; None while nothing is drawn.
    """

    path: Path
    size: tuple[int, int]
    small: np.ndarray
    support: Support | None = None
    mask: np.ndarray | None = None
    drawn: list[np.ndarray] = field(default_factory=list)
    way: Way | None = None


@dataclass(frozen=True)
class Found:
    """A query's result: odds (N,h,w) as of `Prediction`, and a small one of it that is quick to look at."""

    path: Path
    odds: np.ndarray
    small: Prediction


@dataclass(eq=False)
class Desk:
    """Photos and results of one visitor.

    Attributes:
        at: which support photo lies in the editor.
        chosen: how the visitor last chose to mark, which is how a new photo is marked.
        shown: which result is looked at.
    """

    supports: list[Photo] = field(default_factory=list)
    queries: list[Photo] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    at: int = 0
    chosen: Way = "paint"
    shown: int = 0

    @property
    def current(self) -> Photo | None:
        """The support photo in the editor."""
        return self.supports[self.at] if self.at < len(self.supports) else None

    @property
    def way(self) -> Way:
        """How the current photo is marked: its own way, or the one last chosen."""
        return (self.current and self.current.way) or self.chosen

    def choose(self, way: Way) -> None:
        """Keep how to mark, unless it is what the current photo brought with it."""
        if self.current is None or way != self.current.way:
            self.chosen = way

    def leave(self, layers: Sequence[np.ndarray], way: Way) -> None:
        """Keep what is drawn but not used, before another photo comes into the editor."""
        self.choose(way)
        photo = self.current
        if photo is None:
            return
        photo.drawn = list(layers)
        if photo.support is None:
            photo.way = way if any(layer[..., 3].any() for layer in layers) else None

    def go_on(self) -> None:
        """Bring the next photo that is not marked yet into the editor, if there is one."""
        every = [*range(self.at + 1, len(self.supports)), *range(self.at)]
        self.at = next((n for n in every if self.supports[n].support is None), self.at)

    @property
    def classes(self) -> list[str]:
        """Names that were given, in order."""
        return list(dict.fromkeys(p.support.name for p in self.supports if p.support and p.support.name))


def take(paths: Sequence[str | Path]) -> tuple[list[Photo], list[UserError]]:
    """Photos from files, and what is wrong with those that are none."""
    photos, problems = [], []
    for path in map(Path, paths):
        try:
            image = read_photo(path)
        except UserError as error:
            problems.append(error)
        else:
            photos.append(Photo(path, image.shape[:2], shrunk(image)))
    return photos, problems


def mark(
    photo: Photo, layers: Sequence[np.ndarray], way: Way, name: str, mask: Path | None, device: torch.device
) -> None:
    """Make a photo a support: what was drawn on it becomes its mask. It stays as it was if that fails.

    Raises:
        UserError: nothing is marked, or the mask file does not fit.
    """
    if way != "file" and any(layer.shape[:2] != photo.small.shape[:2] for layer in layers):
        raise UserError(f"{photo.path.name} is not what the editor shows; click it below, and mark it there")
    drawn = strokes(layers, photo.size)
    wanted = support(photo.path, way, name, drawn, mask)
    read = read_support(wanted, "clustering", SEED, device, False)
    (made,) = read.masks.values()
    if not (made == 1).any():
        raise UserError(f"{photo.path.name}: nothing is left of the object; mark it anew")
    h, w = photo.small.shape[:2]
    photo.mask = cv2.resize((made == 1).astype(np.uint8), (w, h), interpolation=cv2.INTER_AREA) > 0
    # Masks made from strokes are of a smaller copy of a large photo, and stay with it.
    image = photo.path if made.shape == photo.size else read.image
    photo.support = Support(image, made, wanted.name)
    photo.drawn, photo.way = list(layers), way


def mark_what_is_new(
    desk: Desk, layers: Sequence[np.ndarray], way: Way, name: str, mask: Path | None, device: torch.device
) -> None:
    """Use what is drawn on the current photo, unless that was done already, or there is nothing.

    Raises:
        UserError: as of `mark`.
    """
    photo = desk.current
    desk.choose(way)
    if photo is None:
        return
    there = mask is not None if way == "file" else (strokes(layers, photo.small.shape[:2]) == 1).any()
    same = photo.support is not None and photo.way == way and photo.support.name == (name.strip() or "object")
    same = same and len(layers) == len(photo.drawn) and all(map(np.array_equal, layers, photo.drawn))
    if there and not same:
        mark(photo, layers, way, name, mask, device)


def thumbnails(photos: Sequence[Photo], classes: Sequence[str] = ()) -> list[tuple[np.ndarray, str]]:
    """Small pictures with captions; supports with their masks in their classes' colours."""
    out = []
    for photo in photos:
        name = (photo.support.name or "") if photo.support else ""
        out.append((shrunk(with_mask(photo, classes), 320), name))
    return out


def with_mask(photo: Photo, classes: Sequence[str]) -> np.ndarray:
    """The photo as the browser shows it, its mask in its class's colour if it is marked."""
    name = photo.support.name if photo.support else None
    if name is None or name not in classes or photo.mask is None:
        return photo.small
    labels = np.where(photo.mask, list(classes).index(name) + 1, 0).astype(np.uint8)
    return overlay(photo.small, labels, [name])


def segment(
    desk: Desk, models: Models, choice: str, tile: Tile, progress: Callable[[float, str], None],
    doubt: Callable[[str], None],
) -> Iterator[int]:  # fmt: skip
    """Segment every query; `desk.found` grows by one at each step.

    Args:
        choice: of `Models`.
        tile: as of `Predictor.learn`.
        progress: called with the share done and what is being done.
        doubt: called with each reason to expect little of the model, before anything is computed.

    Raises:
        UserError: no supports or queries, or what `Predictor` says.
    """
    given = [p.support for p in desk.supports if p.support]
    if not given:
        raise UserError("step 1: mark the object in at least one photo first")
    if not desk.queries:
        raise UserError("step 2: drop at least one photo to search in")
    progress(0, "loading the model")
    for reason in models.load(choice).doubts:
        doubt(reason)
    predictor = models.learnt(choice, given, tile)
    desk.found, desk.shown = [], 0
    for number, photo in enumerate(desk.queries):
        said = f"photo {number + 1} of {len(desk.queries)}"

        def tiles(done: int, of: int, number: int = number, said: str = said) -> None:
            progress((number + done / of) / len(desk.queries), f"{said}, tile {done} of {of}")

        progress(number / len(desk.queries), said)
        prediction = predictor(photo.path, tiles)
        desk.found.append(Found(photo.path, prediction.odds, small(prediction)))
        yield number


def small(prediction: Prediction) -> Prediction:
    """The result with no side longer than the browser shows."""
    odds = np.stack([shrunk(o, LONGEST) for o in prediction.odds])
    return Prediction(shrunk(prediction.image), prediction.classes, odds)


def picture(found: Found, view: View, threshold: float) -> np.ndarray:
    """The picture of a result, (h,w,3) uint8: fused anew from the odds, which is quick."""
    if view == "overlay":
        return found.small.overlay(threshold)
    if view == "mask":
        return COLOURS[found.small.labels(threshold)]
    most = np.max([found.small.probability(n) for n in range(len(found.small.classes))], 0)
    heat = cv2.applyColorMap((255 * most).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)


def shares(found: Found, threshold: float) -> list[tuple[str, tuple[int, int, int], float]]:
    """Name, colour and part of the photo (percent) of every class."""
    counts = np.bincount(found.small.labels(threshold).ravel(), minlength=len(found.small.classes) + 1)
    part = 100 * counts / counts.sum()
    return [
        (name, tuple(COLOURS[n].tolist()), float(part[n])) for n, name in enumerate(found.small.classes, 1)
    ]


def files(every: Sequence[Found], threshold: float, folder: Path) -> list[Path]:
    """Masks of all queries at their photos' sizes: one zip with everything, then each mask as a PNG.

    Args:
        folder: a new one.

    Raises:
        UserError: nothing is segmented yet.
    """
    if not every:
        raise UserError("nothing to save yet; press Segment first")
    masks, stems = [], _stems([f.path for f in every])
    with zipfile.ZipFile(folder / "masks.zip", "w", zipfile.ZIP_STORED) as archive:  # PNGs are small already
        for found, stem in zip(every, stems, strict=True):
            full = Prediction(read_photo(found.path), found.small.classes, found.odds)
            for path in full.save(folder, stem, threshold):
                archive.write(path, path.name)
                if path.name.startswith(f"{stem}_mask_"):
                    masks.append(path)
                else:
                    path.unlink()
    return [folder / "masks.zip", *masks]


def _stems(paths: Sequence[Path]) -> list[str]:
    """Names for files, each once, whatever case a file system minds."""
    seen: set[str] = set()
    out = []
    for path in paths:
        stem, number = path.stem, 2
        while stem.lower() in seen:
            stem, number = f"{path.stem}_{number}", number + 1
        seen.add(stem.lower())
        out.append(stem)
    return out
