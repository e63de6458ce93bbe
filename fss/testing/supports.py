"""Support masks made from strokes, boxes or points that are simulated from the true ones.

Each is made once per image and class, at network size, where it is used, and kept on disk. It is a function
of its image, class and settings alone: not of the episode, the process or the number of threads.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from fss.bars import Bar
from fss.config import Config
from fss.data.canvas import Canvas
from fss.data.files import read_image, read_mask
from fss.data.loading import Loadable, load_batches
from fss.data.plan import Draw
from fss.data.source import Source
from fss.episode import IGNORE
from fss.errors import UserError
from fss.runs import distributed
from fss.scribbles.masks import MaskMaker
from fss.scribbles.strokes import simulate
from fss.writing import write_bytes

RULE = 1  # version of simulation and making; raised if masks would come out otherwise


class Pair(NamedTuple):
    """An image that supports a class."""

    position: int
    class_id: int


class SupportMasks(Loadable):
    """Made masks, by image and class.

    Args:
        canvas: the network's.
        seed: of strokes and of clustering, together with the image's name and the class.
        folder: where masks are kept.
        half: cluster in bfloat16.
    """

    def __init__(
        self, source: Source, canvas: Canvas, maker: MaskMaker, seed: int, folder: Path, device: torch.device,
        half: bool,
    ) -> None:  # fmt: skip
        self.source, self.canvas, self.maker, self.seed = source, canvas, maker, seed
        self.folder, self.device, self.half = folder, device, half

    def __call__(self, position: int, class_id: int) -> Tensor:
        """The mask as the head gets it: (S,S) uint8, 255 where the canvas is empty."""
        mask = self.mask(Pair(position, class_id))
        out = np.full((self.canvas.size, self.canvas.size), IGNORE, np.uint8)
        out[: mask.shape[0], : mask.shape[1]] = mask
        return torch.from_numpy(out)

    def load(self, key: Pair) -> float | None:
        """IoU, in percent, of the mask with the true one; made first where it is not there yet."""
        truth = self._truth(key)
        if not (truth == 1).any():
            return None
        valid = truth != IGNORE
        made, true = (self.mask(key) == 1)[valid], (truth == 1)[valid]
        return 100 * float((made & true).sum() / (made | true).sum())

    def mask(self, key: Pair) -> np.ndarray:
        """The made mask (h,w) of 0, 1 and 255, the canvas's empty part left out."""
        path = self._path(key)
        try:
            return read_mask(path)
        except UserError:  # a missing or damaged file is made anew
            mask = self._make(key)
            write_bytes(path, cv2.imencode(".png", mask)[1].tobytes())
            return mask

    def marks(self, key: Pair) -> np.ndarray | None:
        """The marks, (h,w) as of `simulate`; None where resizing left nothing of the class."""
        truth = self._truth(key)
        if not (truth == 1).any():
            return None
        return simulate(truth, self.maker.kind, np.random.default_rng(self._number(key)))

    def picture(self, position: int, class_id: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The made mask and the marks that it was made from, both (h,w), to be drawn."""
        key = Pair(position, class_id)
        return self.mask(key), self.marks(key)

    def _make(self, key: Pair) -> np.ndarray:
        marks = self.marks(key)
        if marks is None:
            return np.zeros_like(self._truth(key))
        image = self.canvas.image(read_image(self.source.samples[key.position].image))
        image = np.ascontiguousarray(image[: marks.shape[0], : marks.shape[1]])
        return self.maker.make(image, marks, self._number(key) % 2**31, self.device, self.half)

    def _truth(self, key: Pair) -> np.ndarray:
        """The true mask (h,w) of 0, 1 and 255."""
        mask, value = self.source.mask(key.position), self.source.value(key.class_id)
        h, w = self.canvas.filled(*mask.shape)
        fitted = self.canvas.mask(mask)[:h, :w]
        return np.where(fitted == IGNORE, IGNORE, fitted == value).astype(np.uint8)

    def _number(self, key: Pair) -> int:
        text = f"{self.seed}/{self.source.samples[key.position].name}/{key.class_id}"
        return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)

    def _path(self, key: Pair) -> Path:
        sample = self.source.samples[key.position]
        files = [
            (str(p.absolute()), p.stat().st_mtime_ns, p.stat().st_size) for p in (sample.image, sample.mask)
        ]
        said = [
            describe(self.maker, self.seed), self.canvas.size, self.half, self.device.type, key.class_id,
            files, *([] if self.canvas.resize == "pad" else [self.canvas.resize]),
        ]  # fmt: skip
        return self.folder / f"{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]}.png"


def describe(maker: MaskMaker, seed: int) -> dict[str, Any]:
    """The settings that decide a mask, apart from its image: part of a protocol."""
    settings = asdict(maker.settings) if maker.method == "clustering" else {}
    return {"kind": maker.kind, "method": maker.method, "rule": RULE, "seed": seed, **settings}


def maker_of(config: Config) -> MaskMaker | None:
    """The maker of supports' masks; None where the true ones are used."""
    t = config.test
    return None if t.support == "mask" else MaskMaker(t.support, t.support_by)


def make_supports(
    config: Config, source: Source, plans: Sequence[Sequence[Draw]], device: torch.device, half: bool
) -> tuple[SupportMasks, dict[str, Any]] | None:
    """Make the mask of every support that the plans need, shared out over processes and loader processes.

    Returns:
        the masks, and what a result tells of them: how many, and their mean IoU with the true ones, percent.
        None where the true masks are used.

    Raises:
        UserError: an image or mask cannot be read.
    """
    maker = maker_of(config)
    if maker is None:
        return None
    folder = config.output / "cache" / "supports"
    masks = SupportMasks(source, Canvas.of(config.data), maker, config.test.seed, folder, device, half)
    pairs = sorted({Pair(i, d.class_id) for plan in plans for d in plan for i in d.supports})
    mine = pairs[distributed.rank() :: distributed.world()]
    bar = Bar(
        total=len(mine), desc=f"support masks, {maker.kind} by {maker.method}", unit="mask",
        disable=not distributed.is_main(), leave=False,
    )  # fmt: skip
    ious: list[float] = []
    # A GPU cannot be shared with forked processes, nor does it need them.
    workers = 0 if device.type == "cuda" else config.data.workers
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads as in loader processes, because sums depend on how many add them up
    try:
        for (found,) in load_batches(masks, [[pair] for pair in mine], list, workers):
            ious += [] if found is None else [found]
            bar.update()
    finally:
        torch.set_num_threads(threads)
        bar.close()
    distributed.barrier()
    every = [iou for part in distributed.gather(ious) for iou in part]
    told = {"kind": maker.kind, "method": maker.method, "masks": len(pairs)}
    return masks, {**told, "miou_with_truth": round(mean(sorted(every)), 4) if every else None}
