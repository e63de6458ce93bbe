"""A mask of an object, from an image and marks on it."""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import torch

from fss.episode import IGNORE
from fss.scribbles.clustering import Clustering, check_scribble, cluster
from fss.scribbles.strokes import Kind

Method = Literal["clustering", "grabcut", "drawn"]
ROUNDS = 5  # iterations of GrabCut


@dataclass(frozen=True)
class MaskMaker:
    """How marks become a mask.

    Attributes:
        method: "clustering"; "grabcut" (OpenCV's); or "drawn", the marks themselves: a box filled, strokes
            and points with all else ignored.
    """

    kind: Kind
    method: Method = "clustering"
    settings: Clustering = field(default_factory=Clustering)

    def make(
        self, image: np.ndarray, marks: np.ndarray, seed: int, device: torch.device | None = None,
        half: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """The mask of what is marked.

        What a stroke or point says is kept, whatever the method thinks; a box of which nothing is left is
        filled.

        Args:
            image: RGB (H,W,3) uint8.
            marks: (H,W) uint8: 0 background, 1 the object, 255 not marked; for a box: 0 outside, 255 inside.
            seed: of clustering's network.

        Returns:
            (H,W) uint8: 0 background, 1 the object; with "drawn" strokes and points 255 where nothing is
            marked.

        Raises:
            UserError: marks of another size, or without a mark of the object.
        """
        box = self.kind == "box"
        check_scribble(marks, image.shape[:2], 2, object_wanted=not box)
        drawn = np.where(marks == IGNORE, 1, 0).astype(np.uint8) if box else marks
        nothing_to_do = not (marks == IGNORE).any() or (box and not (marks == 0).any())
        if self.method == "drawn" or nothing_to_do:
            return drawn.copy()
        if self.method == "grabcut":
            found = _grabcut(image, marks, box)
        else:
            labels = cluster(image, marks, self.settings, seed, device, half)
            found = labels != 0 if box else labels == 1  # all of a box that has not become background
        found = np.where(marks == IGNORE, found, marks).astype(np.uint8)
        return found if (found == 1).any() else drawn.copy()


def _grabcut(image: np.ndarray, marks: np.ndarray, box: bool) -> np.ndarray:
    """Rother, Kolmogorov, Blake: "GrabCut", SIGGRAPH 2004, as OpenCV has it.

    What is not marked starts as probably of the side whose mark is nearest, or, in a box, as probable object.
    """
    unmarked = np.full(marks.shape, box)
    if not box and (marks == 0).any():
        away = [cv2.distanceTransform((marks != v).astype(np.uint8), cv2.DIST_L2, 5) for v in (0, 1)]
        unmarked = away[1] < away[0]
    state = np.where(unmarked, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[marks == 0], state[marks == 1] = cv2.GC_BGD, cv2.GC_FGD
    cv2.setRNGSeed(0)  # the seed of its k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, state, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.uint8)
