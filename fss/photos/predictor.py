"""Segmenting one's own photos: `Predictor(checkpoint).learn(supports)(query)`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from fss.backbones.base import Backbone, check_size
from fss.data.episodes import photo_mask
from fss.data.transforms import fit, fit_mask, fitted_size, to_tensor
from fss.errors import UserError
from fss.heads import Encoded, Features
from fss.model import FewShotModel, build_backbone, build_model
from fss.ops import resize
from fss.photos.annotations import Support, as_photo, named, read_support
from fss.photos.prediction import Prediction, enlarge
from fss.pictures.overlay import file_name
from fss.recipes import load_config
from fss.runs import checkpoint, distributed
from fss.runs.models import load_base_with, load_model
from fss.runs.precision import wants_half
from fss.scribbles.masks import Method

OVERLAP = 0.25  # overlap of a tile, on each side that has a neighbour


class Predictor:
    """A few-shot model, the classes that it was shown, and what it says of photos.

    Each class is segmented against background on its own, as episodes are; `Prediction` fuses them.

    Args:
        checkpoint: of any head, or a base network, on which `head` is put. Without one, `head` stands
            on the backbone's pretrained weights.
        head: where the checkpoint has none; one with nothing to learn.
        settings: `key=value`, as of the command line, for what a checkpoint does not say: `head.level=...`,
            `backbone.layers=101`, `precision=fp32`, `device=cpu`.
        size: longest side at which the network sees an image or a tile, pixels; the checkpoint's own,
            or `data.size`, unless given.
        support_by: how strokes, boxes and points become masks, as of `MaskMaker`.
        seed: of whatever is random in the head or in making masks.

    Raises:
        UserError: no such file or weights, a head that would have to learn first, unknown settings.
    """

    def __init__(
        self, checkpoint: Path | str | None = None, *, head: str = "prototype", settings: Sequence[str] = (),
        size: int | None = None, support_by: Method = "clustering", seed: int = 2021,
    ) -> None:  # fmt: skip
        config = load_config("folder", head, settings)
        self.device = distributed.start(config.device)
        self.half = wants_half(config.precision, self.device)
        self.model, own = _load(Path(checkpoint) if checkpoint else None, head, settings, self.half)
        self.model = self.model.eval().to(self.device)
        self.size = size if size is not None else own or config.data.size
        if support_by not in get_args(Method):
            raise UserError(f"support_by={support_by!r}; allowed: {', '.join(get_args(Method))}")
        if not isinstance(self.size, int) or self.size > 4097:
            raise UserError(f"size {self.size}; allowed: whole numbers up to 4097, such as 473")
        check_size(cast(Backbone, self.model.backbone), self.size, "size")
        self.support_by, self.seed = support_by, seed
        self._shown: dict[str, tuple[Features, Tensor]] = {}

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list(self._shown)

    def learn(self, supports: Sequence[Support]) -> "Predictor":
        """Take these supports in place of all earlier ones. Every image is encoded once.

        Raises:
            UserError: a support is missing or damaged, or shows nothing; earlier ones then stay.
        """
        supports = named(list(supports) if isinstance(supports, Iterable) else [supports])
        features: dict[str, list[Features]] = {}
        masks: dict[str, list[Tensor]] = {}
        for support in supports:
            found = read_support(support, self.support_by, self.seed, self.device, self.half)
            canvas, encoded = self._canvas(found.image), None
            for name, mask in found.masks.items():
                small = fit_mask(mask, self.size)
                if not (small == 1).any():
                    small = _kept(mask, self.size)
                small_mask = torch.from_numpy(small)[None].to(self.device)
                if encoded is None or self.model.head.support_cut != "nothing":
                    encoded = self._encode_support(canvas, small_mask)
                features.setdefault(name, []).append(encoded)
                masks.setdefault(name, []).append(small_mask[0])
        names = sorted(features, key=int) if supports[0].name is None else list(features)
        _check_names(names)
        self._shown = {name: self._class(features[name], torch.stack(masks[name])) for name in names}
        return self

    @staticmethod
    def _class(features: list[Features], masks: Tensor) -> tuple[Features, Tensor]:
        """The supports of a class as the head takes them: {level: (1,K,C,h,w)} and masks (1,K,S,S)."""
        support = {level: torch.stack([f[level][0] for f in features])[None] for level in features[0]}
        return support, masks[None]

    def __call__(
        self, query: Path | str | np.ndarray, tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:  # fmt: skip
        """Segment a photo.

        Args:
            query: a file, or RGB (H,W,3) uint8.
            tile: look at squares of so many pixels of the photo, overlapping by a quarter, in place of all of
                it at once: for small objects in large photos.
            progress: called with tiles done and tiles in all.

        Raises:
            UserError: nothing was learnt, the photo cannot be read, or logits are not finite.
        """
        if not self._shown:
            raise UserError("no supports yet; call learn() with at least one")
        check_tile(tile)
        image = as_photo(query)
        height, width = image.shape[:2]
        if tile is None or max(height, width) <= tile:
            return Prediction(image, self.classes, self._odds(image))
        places = [(y, x) for y in _starts(height, tile) for x in _starts(width, tile)]
        total = np.zeros((len(self._shown), height, width), np.float32)
        weight = np.zeros((height, width), np.float32)
        for done, (y, x) in enumerate(places, 1):
            part = image[y : y + tile, x : x + tile]
            share = _ramp(*part.shape[:2])
            where = np.s_[y : y + part.shape[0], x : x + part.shape[1]]
            for n, odds in enumerate(self._odds(part)):
                total[n][where] += share * enlarge(odds, (part.shape[0], part.shape[1]))
            weight[where] += share
            if progress:
                progress(done, len(places))
        total /= weight
        return Prediction(image, self.classes, total)

    @torch.no_grad()
    def _odds(self, image: np.ndarray) -> np.ndarray:
        """(H,W,3) -> log-odds (N,h,w) at network size, without the canvas's empty part."""
        h, w = fitted_size(image.shape[0], image.shape[1], self.size)
        query, found = self.model.encode(self._canvas(image)), []
        corners, photo = self.model.corners, photo_mask((h, w), self.size)[None].to(self.device)
        for name, (support, masks) in self._shown.items():
            episode = Encoded(
                query, support, masks, [self.seed], corners, photo=photo, network=self.model.extract
            )
            logits = self.model.head(episode).logits.float()
            if not logits.isfinite().all():
                raise UserError(
                    f"logits of class {name} are not finite; try precision=fp32, or another support"
                )
            lead = resize(logits[:, 1:] - logits[:, :1], (self.size, self.size), corners)[0, 0]
            found.append(lead[:h, :w].cpu().numpy())
        return np.stack(found)

    def _canvas(self, image: np.ndarray) -> Tensor:
        """(H,W,3) -> RGB (1,3,S,S) of bytes."""
        return to_tensor(fit(np.ascontiguousarray(image), self.size))[None].to(self.device)

    @torch.no_grad()
    def _encode_support(self, canvas: Tensor, mask: Tensor) -> Features:
        return self.model.encode_support(canvas, mask)


def _load(
    path: Path | None, head: str, settings: Sequence[str], half: bool
) -> tuple[FewShotModel, int | None]:
    """A model, and the size that it was trained at."""
    if path is not None:
        stage = checkpoint.read(path)["about"].get("stage")
        on_neck = ["head.level=neck"] if head == "prototype" else []
        own = load_config("folder", head, [*on_neck, *settings]).head
        if stage == "base":
            model = load_base_with(path, own, half)
        else:
            _refuse(settings, path)
            model = load_model(path, bf16=half)
        return model, model.told.get("size")
    config = load_config("folder", head, settings)
    torch.manual_seed(config.seed)  # the seed of weights that are random on purpose
    try:
        backbone = build_backbone(config.backbone)
    except UserError as error:
        raise UserError(f"{error}\nOr name a trained or converted model with --checkpoint FILE.") from None
    model = build_model(config.head.type, config.head.options, backbone, None, half)
    if model.head.learns:
        raise UserError(
            f"head {head!r} learns, so it needs a checkpoint: train it and name its best.pt, "
            "or use the prototype head, which has nothing to learn"
        )
    return model, None


def _refuse(settings: Sequence[str], path: Path) -> None:
    said = [text for text in settings if text.startswith(("head.", "neck.", "backbone."))]
    if said:
        raise UserError(f"{said[0]}: {path} settles that itself; leave it out")


def check_tile(tile: int | None) -> None:
    """Raise `UserError` unless a tile's side is None or a number of pixels to be looked at."""
    if tile is not None and (not isinstance(tile, int) or tile < 32):
        raise UserError(f"tile {tile}; allowed: whole numbers from 32 pixels on")


def _starts(length: int, tile: int) -> list[int]:
    """The first pixels of tiles along a side: evenly spaced, the last one ending with it."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - OVERLAP)))) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


def _ramp(height: int, width: int) -> np.ndarray:
    """Weights (h,w) of a tile: 1 inside, falling to its edges, where the neighbour knows more."""
    sides = []
    for length in (height, width):
        from_edge = np.minimum(np.arange(length) + 1, np.arange(length, 0, -1))
        sides.append(np.minimum(from_edge / max(OVERLAP * length, 1), 1))
    return np.outer(*sides).astype(np.float32)


def _kept(mask: np.ndarray, size: int) -> np.ndarray:
    """`fit_mask`, but with objects that fall between its samples: each keeps at least its pixels' cells."""
    small = fit_mask(mask, size)
    h, w = fitted_size(mask.shape[0], mask.shape[1], size)
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
