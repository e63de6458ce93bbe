"""Segmenting one's own photos: `Predictor(checkpoint).learn(supports)(query)`."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor

from fss.backbones.base import Backbone, check_size
from fss.data.canvas import Canvas
from fss.data.episodes import photo_mask
from fss.data.transforms import to_tensor
from fss.errors import UserError
from fss.heads import Encoded, Features
from fss.ops import resize
from fss.photos import threshold, tiles
from fss.photos.annotations import Annotated, Support, as_photo, named, read_support
from fss.photos.edges import refined
from fss.photos.network import doubts, load
from fss.photos.prediction import Prediction, enlarge
from fss.photos.side_by_side import side_by_side
from fss.photos.tiles import Tile, check_tile
from fss.pictures.overlay import file_name
from fss.recipes import load_config
from fss.runs import distributed
from fss.runs.precision import wants_half
from fss.scribbles.masks import Method


@dataclass(frozen=True)
class View:
    """A photo, or a square of one, as the network sees it.

    Attributes:
        canvas: RGB (1,3,S,S) of bytes.
        inside: (h,w), the part of the canvas that is photo.
        support: the head's encoding of it as a support, {name: (1,...)}.
        query: the same as a query, if the head encodes both alike.
    """

    canvas: Tensor
    inside: tuple[int, int]
    support: Features
    query: Features | None


class Shot(NamedTuple):
    """A view with the mask (1,S,S) of a class, 0, 1 and 255, and the number of the photo that it is of."""

    photo: int
    view: View
    mask: Tensor


@dataclass
class SupportSet:
    """The supports of a class.

    Attributes:
        shots: at least one.
        tile: how its queries are looked at: a tile's side in pixels, as a share of the photo's longest side,
            or None for the whole photo.
        border: log-odds from which on a pixel is the object.
    """

    shots: list[Shot]
    tile: int | float | None
    border: float = 0.0

    def side(self, image: np.ndarray) -> int | None:
        """Pixels of a tile of this photo (H,W,3); None if it is looked at whole."""
        longest = max(image.shape[:2])
        side = round(self.tile * longest) if isinstance(self.tile, float) else self.tile
        return None if side is None or side >= longest else max(side, 1)


class Predictor:
    """A few-shot model with the supports of some classes, which segments photos.

    Each class is segmented against background on its own, as episodes are; `Prediction` fuses them.

    Args:
        checkpoint: of any head, or a base network, on which `head` is put. Without one, `head` stands
            on EfficientNet-Lite0's ImageNet weights, which are installed with the package.
        head: where the checkpoint has none; one with nothing to learn.
        settings: `key=value`, as of the command line, for what a checkpoint does not say: `head.level=...`,
            `backbone.type=resnet101`, `precision=fp32`, `device=cpu`.
        size: longest side at which the network sees an image or a tile, pixels; the checkpoint's own,
            or 321, unless given.
        support_by: how strokes, boxes and points become masks, as of `MaskMaker`.
        edges: bring masks to the photo's edges by a guided filter.
        seed: of whatever is random in the head or in making masks.

    Attributes:
        doubts: reasons to expect little of this model on photos.

    Raises:
        UserError: no such file or weights, a head that would have to learn first, unknown settings.
    """

    def __init__(
        self, checkpoint: Path | str | None = None, *, head: str = "votes", settings: Sequence[str] = (),
        size: int | None = None, support_by: Method = "clustering", edges: bool = True, seed: int = 2021,
    ) -> None:  # fmt: skip
        config = load_config("folder", head, settings)
        self.device = distributed.start(config.device)
        self.half = wants_half(config.precision, self.device)
        self.model, own = load(Path(checkpoint) if checkpoint else None, head, settings, self.half)
        self.model = self.model.eval().to(self.device)
        self.doubts = doubts(self.model)
        self.size = size if size is not None else own.size
        if support_by not in get_args(Method):
            raise UserError(f"support_by={support_by!r}; allowed: {', '.join(get_args(Method))}")
        if not isinstance(self.size, int) or self.size > 4097:
            raise UserError(f"size {self.size}; allowed: whole numbers up to 4097, such as {own.size}")
        check_size(cast(Backbone, self.model.backbone), self.size, "size")
        self.canvas = Canvas(self.size, own.resize)
        self.support_by, self.edges, self.seed = support_by, edges, seed
        self._supports: dict[str, SupportSet] = {}

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list(self._supports)

    @property
    def thresholds(self) -> dict[str, float]:
        """The probability, of the network's own, that each class's 0.5 stands for."""
        return {name: float(1 / (1 + np.exp(-one.border))) for name, one in self._supports.items()}

    @property
    def tile_shares(self) -> dict[str, float]:
        """Tiles of classes whose objects are small: a tile's side as a share of the photo's longest."""
        return {name: s.tile for name, s in self._supports.items() if isinstance(s.tile, float)}

    @property
    def tiled(self) -> bool:
        """Whether photos are looked at in tiles."""
        return any(one.tile is not None for one in self._supports.values())

    def learn(
        self, supports: Sequence[Support], tile: Tile = "auto", leave_one_out: bool = True
    ) -> "Predictor":
        """Take these supports in place of all earlier ones.

        Every image, or square of one, is encoded once for all of its classes, unless the head cuts it by
        their masks.

        Args:
            tile: look at squares of so many pixels of photos, overlapping by a quarter, in place of all of
                them at once, and at supports likewise; None for the whole photos. "auto": as the supports'
                objects need it, for each class.
            leave_one_out: choose each class's threshold on its supports, where there are two or more.

        Raises:
            UserError: a support is missing or damaged, or shows nothing; earlier ones then stay.
        """
        check_tile(tile)
        supports = named(list(supports) if isinstance(supports, Iterable) else [supports])
        numbers = photo_numbers(supports)
        read = [self._read(s) for s in supports]
        names = list(dict.fromkeys(name for found in read for name in found.masks))
        names = sorted(names, key=int) if supports[0].name is None else names
        _check_names(names)
        views: dict[tuple[object, ...], View] = {}
        sets = {name: self._support_set(name, read, numbers, tile, views) for name in names}
        for one in sets.values() if leave_one_out else ():
            one.border = self._border(one.shots)
        self._supports = sets
        return self

    def __call__(
        self, query: Path | str | np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> Prediction:
        """Segment a photo.

        Args:
            query: a file, or RGB (H,W,3) uint8.
            progress: called with tiles done and tiles in all, where there are tiles.

        Raises:
            UserError: nothing was learnt, the photo cannot be read, or logits are not finite.
        """
        if not self._supports:
            raise UserError("no supports yet; call learn() with at least one")
        image = as_photo(query)
        sides = {name: one.side(image) for name, one in self._supports.items()}
        found: dict[str, np.ndarray] = {}
        for side in dict.fromkeys(sides.values()):
            names = [name for name in self._supports if sides[name] == side]

            def look(part: np.ndarray, names: list[str] = names) -> np.ndarray:
                return self._odds(part, names)

            odds = look(image) if side is None else tiles.joined(image, side, look, progress)
            found |= dict(zip(names, odds, strict=True))
        mixed = len({odds.shape for odds in found.values()}) > 1
        every = [enlarge(found[n], image.shape[:2]) if mixed else found[n] for n in self._supports]
        return Prediction(image, self.classes, np.stack(every))

    def each(self, queries: Iterable[Path | str | np.ndarray]) -> Iterator[Prediction]:
        """Segment photos, in their order; on a CPU as many at once as PyTorch has threads.

        Raises:
            UserError: as when called, in the place of that photo.
        """
        return side_by_side(self, queries, self.device)

    def without(self, photo: int, leave_one_out: bool = True) -> "Predictor | None":
        """A copy without the supports of a photo (by `photo_numbers`); None if that leaves none.

        The copy's tiles are as large as with that photo.
        """
        copied = copy.copy(self)
        copied._supports = {}
        for name, every in self._supports.items():
            shots = [shot for shot in every.shots if shot.photo != photo]
            if shots:
                border = self._border(shots) if leave_one_out else 0.0
                copied._supports[name] = SupportSet(shots, every.tile, border)
        return copied if copied._supports else None

    def annotation(self, supports: Sequence[Support]) -> Annotated:
        """The image of supports of one photo, and the masks (H,W) of all their classes by name."""
        read = [self._read(support) for support in supports]
        return Annotated(read[0].image, {k: v for found in read for k, v in found.masks.items()})

    def _read(self, support: Support) -> Annotated:
        return read_support(support, self.support_by, self.seed, self.device, self.half)

    def _support_set(
        self, name: str, read: Sequence[Annotated], numbers: Sequence[int], tile: Tile,
        views: dict[tuple[object, ...], View],
    ) -> SupportSet:  # fmt: skip
        """The supports of a class, whole or in squares round its objects; `views` holds what is encoded."""
        every = [
            (number, support.image, support.masks[name])
            for number, support in zip(numbers, read, strict=True)
            if name in support.masks
        ]
        masks = [mask for _, _, mask in every]
        support_set = SupportSet([], tiles.share_of(masks, self.size) if tile == "auto" else tile)
        most = max(tiles.CROPS // len(every), 1)
        for number, image, mask in every:
            side = support_set.side(image)
            for box in (tiles.crops(mask, side, most) if side else []) or [(0, 0, *mask.shape)]:
                top, left, bottom, right = box
                where = np.s_[top:bottom, left:right]
                key = number, image.shape, box
                shot = self._shot(number, image[where], mask[where], views.get(key))
                support_set.shots.append(shot)
                if self.model.head.support_cut == "nothing":
                    views[key] = shot.view
        return support_set

    def _shot(self, photo: int, image: np.ndarray, mask: np.ndarray, view: View | None) -> Shot:
        small = self.canvas.mask(np.ascontiguousarray(mask))
        if not (small == 1).any():
            small = _keeping_small_objects(mask, self.canvas)
        on_device = torch.from_numpy(small)[None].to(self.device)
        return Shot(photo, view or self._view(image, on_device), on_device)

    @torch.no_grad()
    def _view(self, image: np.ndarray, mask: Tensor) -> View:
        prepared, inside = self._prepared(image), self.canvas.filled(*image.shape[:2])
        if not self.model.head.encodes_alike:
            return View(prepared, inside, self.model.encode_support(prepared, mask), None)
        query = self.model.encode(prepared)
        support = {name: x for name, x in query.items() if name not in self.model.head.query_only}
        return View(prepared, inside, support, query)

    def _border(self, shots: Sequence[Shot]) -> float:
        """`threshold.border` of a class: each photo in turn is the query of the others."""
        photos = list(dict.fromkeys(shot.photo for shot in shots))
        curves = []
        for photo in photos[: threshold.MOST] if len(photos) > 1 else ():
            others = [shot for shot in shots if shot.photo != photo]
            each = [
                threshold.curve(self._lead(query, view.inside, others), mask[0].cpu().numpy())
                for number, view, mask in shots
                if number == photo
                for query in [view.query or self._encode(view.canvas)]
            ]
            curves.append(np.mean(each, 0))
        return threshold.border(curves)

    def _odds(self, image: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(H,W,3) -> log-odds (N,h,w) of classes against background, on the photo's grid or the network's."""
        prepared, inside = self._prepared(image), self.canvas.filled(*image.shape[:2])
        query, found = self._encode(prepared), []
        for name in names:
            support_set = self._supports[name]
            lead = self._lead(query, inside, support_set.shots)
            if not np.isfinite(lead).all():
                raise UserError(
                    f"logits of class {name} are not finite; try precision=fp32, or another support"
                )
            found.append(lead[: inside[0], : inside[1]] - np.float32(support_set.border))
        odds = np.stack(found)
        return refined(odds, image, self.size) if self.edges else odds

    @torch.no_grad()
    def _lead(self, query: Features, inside: tuple[int, int], shots: Sequence[Shot]) -> np.ndarray:
        """Log-odds (S,S) of the foreground in an encoded query, by these shots."""
        support = {
            name: torch.stack([shot.view.support[name][0] for shot in shots])[None]
            for name in shots[0].view.support
        }
        masks, corners = torch.stack([shot.mask[0] for shot in shots])[None], self.model.corners
        photo = photo_mask(inside, self.size)[None].to(self.device)
        episode = Encoded(
            query, support, masks, [self.seed], corners, photo=photo, network=self.model.network
        )
        logits = self.model.head(episode).logits.float()
        lead = resize(logits[:, 1:] - logits[:, :1], (self.size, self.size), corners)[0, 0]
        return cast(np.ndarray, lead.cpu().numpy())

    @torch.no_grad()
    def _encode(self, canvas: Tensor) -> Features:
        return self.model.encode(canvas)

    def _prepared(self, image: np.ndarray) -> Tensor:
        """(H,W,3) -> RGB (1,3,S,S) of bytes."""
        return to_tensor(self.canvas.image(np.ascontiguousarray(image)))[None].to(self.device)


def photo_numbers(supports: Sequence[Support]) -> list[int]:
    """Which photo each support is of, counted from 0: several supports may show several classes of one."""
    seen: dict[object, int] = {}
    keys = [id(s.image) if isinstance(s.image, np.ndarray) else str(s.image) for s in supports]
    return [seen.setdefault(key, len(seen)) for key in keys]


def _keeping_small_objects(mask: np.ndarray, canvas: Canvas) -> np.ndarray:
    """`Canvas.mask`, but with objects that fall between its samples: each keeps its pixels' cells."""
    small = canvas.mask(mask)
    h, w = canvas.filled(*mask.shape)
    y, x = np.nonzero(mask == 1)
    small[y * h // mask.shape[0], x * w // mask.shape[1]] = 1
    return small


def _check_names(names: Sequence[str]) -> None:
    """Raise `UserError` if two names would be one as parts of file names."""
    seen: dict[str, str] = {}
    if len(names) > 254:
        raise UserError(f"{len(names)} classes; at most 254 fit a map of 8 bits")
    for name in names:
        if not name or not name.isprintable():
            raise UserError(f"class name {name!r}; allowed: text that can be printed, not empty")
        twin = seen.setdefault(file_name(name).lower(), name)
        if twin != name:
            raise UserError(f"classes {twin!r} and {name!r} would share their files' names; rename one")
