"""Feature clustering's reference mode: one network trained on a few images, applied to many.

Kim, Kanezaki, Tanaka (arXiv 2007.09990), section IV: images of 224 x 224, one a batch, weights kept.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fss.bars import Bar
from fss.data.photos import read_photo
from fss.runs import checkpoint
from fss.runs.identity import require
from fss.scribbles.clustering import Clusterer, Clustering, at_working_size
from fss.scribbles.guided import enlarge

SIDE = 224  # pixels
_SAVE_EVERY = 60  # seconds


class Reference:
    """A network for many images; its labels mean the same in all of them."""

    def __init__(self, settings: Clustering, seed: int, device: torch.device, half: bool) -> None:
        self.settings, self.seed = settings, seed
        self.worker = Clusterer(settings, seed, device, half)

    def train(self, images: Sequence[Path], path: Path) -> None:
        """`settings.steps` updates, an image each, in an order that the seed decides; kept at `path`.

        Raises:
            UserError: an unreadable image, or other settings than those that were begun with.
        """
        about = {
            "stage": "clustering", "seed": self.seed, "images": [p.name for p in images],
            **asdict(self.settings),
        }  # fmt: skip
        done = self._resume(path, about)
        squares: dict[Path, torch.Tensor] = {}
        saved = time.monotonic()
        with Bar(total=self.settings.steps, initial=done, desc="reference", unit="step", leave=False) as bar:
            for step in range(done, self.settings.steps):
                chosen = self._turn(images, step)
                if chosen not in squares:
                    square = cv2.resize(read_photo(chosen), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                    squares[chosen] = self.worker.prepared(square)
                self.worker.step(squares[chosen], None)
                bar.update()
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._save(path, about, step + 1)
                    saved = time.monotonic()
        if done < self.settings.steps:
            self._save(path, about, self.settings.steps)

    def load(self, path: Path) -> None:
        """Take weights that `train` kept; only how large images are worked at may differ.

        Raises:
            UserError: another kind of file, or another network.
        """
        content = checkpoint.read(path)
        wanted: dict[str, Any] = {k: getattr(self.settings, k) for k in ("channels", "blocks")}
        require(content["about"], {"stage": "clustering", **wanted}, str(path))
        checkpoint.fill(self.worker.network, content, path)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Labels (H,W) uint8 of an image (H,W,3) RGB uint8."""
        small, _ = at_working_size(image, None, self.settings.size)
        labels = self.worker.labels(self.worker.prepared(small)).cpu().numpy().astype(np.uint8)
        return enlarge(labels, image)

    def _turn(self, images: Sequence[Path], step: int) -> Path:
        """The image of a step: each once a lap, in an order of its own."""
        lap, place = divmod(step, len(images))
        return images[np.random.default_rng([self.seed, lap]).permutation(len(images))[place]]

    def _resume(self, path: Path, about: dict[str, Any]) -> int:
        """Steps that are done already."""
        if not path.exists():
            return 0
        content = checkpoint.read(path)
        require(content["about"], about, str(path))
        checkpoint.fill(self.worker.network, content, path)
        self.worker.optimizer.load_state_dict(content["optimizer"])
        return int(content["step"])

    def _save(self, path: Path, about: dict[str, Any], step: int) -> None:
        checkpoint.save(
            path, about, self.worker.network, facts={"steps": step}, settings={},
            optimizer=self.worker.optimizer.state_dict(), step=step, spent=0.0, best=0.0, validated=0,
        )  # fmt: skip
