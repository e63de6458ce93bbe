"""Segmenting one image by training a small network on it alone, with or without a few scribbles.

Kim, Kanezaki, Tanaka: "Unsupervised Learning of Image Segmentation Based on Differentiable Feature
Clustering", IEEE TIP 2020 (arXiv 2007.09990), section III. What differs from the paper by
default, and why: docs/scribbles.md.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.episode import IGNORE
from fss.errors import UserError
from fss.randomness import seeded
from fss.scribbles.guided import enlarge
from fss.scribbles.objective import Weights, objective


@dataclass(frozen=True)
class Clustering:
    """Settings; the defaults are the practical ones, `PUBLISHED` the paper's.

    Attributes:
        channels: of every map, q: the most labels there can be.
        blocks: 3x3 convolutions, M, at least 1.
        min_labels: stop when no more labels are left; None: 3, or with scribbles as many as they have.
        size: longest side that is worked at, pixels; None: the image's own.
        settled: stop when a smaller share of pixels than this changes its label in `patience` steps in a row;
            0: never.
    """

    channels: int = 32
    blocks: int = 2
    lr: float = 0.1
    momentum: float = 0.9
    steps: int = 1000
    similarity: float = 1.0
    continuity: float = 1.0
    scribble: float = 0.5
    min_labels: int | None = None
    size: int | None = 256
    settled: float = 0.002
    patience: int = 10

    def __post_init__(self) -> None:
        """Raise `UserError` for a value out of range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name.replace('_', ' ')} {value}; allowed: {low:g} to {high:g}")

    @property
    def weights(self) -> Weights:
        """Weights of the three losses."""
        return Weights(self.similarity, self.continuity, self.scribble)


_RANGES = (
    ("channels", 2, 255), ("blocks", 1, 20), ("lr", 1e-6, 10), ("momentum", 0, 0.999), ("steps", 1, 1e6),
    ("similarity", 0, 1e3), ("continuity", 0, 1e3), ("scribble", 0, 1e3), ("min_labels", 1, 255),
    ("size", 16, 1e5), ("settled", 0, 1), ("patience", 1, 1e4),
)  # fmt: skip

PUBLISHED = Clustering(channels=100, size=None, settled=0)


class Network(nn.Module):
    """3x3 convolutions with ReLU and batch norm, a 1x1 convolution with batch norm (section III, figure 2).

    Norms use the image's own statistics, always, so there is no other state than the parameters.
    """

    def __init__(self, channels: int, blocks: int, seed: int) -> None:
        super().__init__()
        widths = [3, *[channels] * blocks]
        with seeded(0):  # PyTorch fills them with numbers, which are drawn over below
            convs = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
            convs.append(nn.Conv2d(channels, channels, 1))
        norms = [nn.BatchNorm2d(channels, track_running_stats=False) for _ in convs]
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
        self.layers = list(zip(convs, norms, strict=True))
        generator = torch.Generator().manual_seed(seed)
        for conv in convs:  # weights are uniform, as PyTorch starts convolutions, from a generator of our own
            bound = conv.weight[0].numel() ** -0.5
            for parameter in conv.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        """Images (1,3,H,W) of 0..1 -> response maps (1,q,H,W), in the image's number format."""
        x = image
        for conv, norm in self.layers:
            assert conv.bias is not None
            weight = conv.weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
            x = F.conv2d(x, weight, conv.bias.to(x.dtype), padding=conv.kernel_size[0] // 2)
            x = norm(x if conv is self.layers[-1][0] else x.relu_())
        return x


class Clusterer:
    """A network and its optimiser: one `step` at a time, on one image or on many in turn.

    Args:
        half: compute in bfloat16; parameters stay in float32.
    """

    def __init__(
        self, settings: Clustering, seed: int, device: torch.device | None = None, half: bool = False
    ) -> None:
        self.settings, self.device = settings, device or torch.device("cpu")
        self.dtype = torch.bfloat16 if half else torch.float32
        self.network = Network(settings.channels, settings.blocks, seed).to(self.device)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
        self.buffer: Tensor | None = None

    def prepared(self, image: np.ndarray) -> Tensor:
        """RGB (H,W,3) uint8 -> (1,3,H,W), 0..1."""
        x = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None].float() / 255
        return x.to(self.dtype, memory_format=torch.channels_last)

    def step(self, image: Tensor, scribble: Tensor | None) -> tuple[Tensor, Tensor]:
        """One update on a prepared image; returns the labels (H,W) before it and the losses (3,).

        Raises:
            UserError: the response is not finite any more.
        """
        response = self.network(image)
        fits = self.buffer is not None and self.buffer.shape == response.shape
        found = objective(response, scribble, self.settings.weights, self.buffer if fits else None)
        if not bool(found.losses.isfinite().all()):
            raise UserError(
                f"clustering diverged with lr {self.settings.lr:g}; take a smaller one, such as 0.1"
            )
        self.buffer = found.gradient
        self.optimizer.zero_grad(set_to_none=True)
        response.backward(found.gradient)
        self.optimizer.step()
        return found.labels, found.losses

    @torch.no_grad()
    def labels(self, image: Tensor) -> Tensor:
        """Labels (H,W) of a prepared image."""
        return self.network(image)[0].argmax(0)


class Stop:
    """The rule to stop: few labels left (published), or labels that have settled (ours)."""

    def __init__(self, settings: Clustering, marks: int) -> None:
        self.settings = settings
        self.least = settings.min_labels or (marks or 3)
        self.before: Tensor | None = None
        self.quiet = 0

    def now(self, labels: Tensor) -> bool:
        """Whether to stop after the step that saw these labels (H,W)."""
        if self.before is not None:
            changed = float((labels != self.before).float().mean())
            self.quiet = self.quiet + 1 if changed < self.settings.settled else 0
        self.before = labels
        few = len(labels.unique()) <= self.least
        return few or bool(self.settings.settled and self.quiet >= self.settings.patience)


class Session:
    """The clustering of one image: `step` until it says that it is over, then `labels`.

    Args:
        image: RGB (H,W,3) uint8.
        scribble: (H,W) uint8, 255 where nothing is marked, else a label below q (`check_scribble`);
            None: unsupervised.
        seed: of the network's start; all the randomness there is.
    """

    def __init__(
        self, image: np.ndarray, scribble: np.ndarray | None, settings: Clustering, seed: int,
        device: torch.device | None = None, half: bool = False,
    ) -> None:  # fmt: skip
        self.image, self.settings = image, settings
        small, marks = at_working_size(image, scribble, settings.size)
        self.worker = Clusterer(settings, seed, device, half)
        self.prepared = self.worker.prepared(small)
        self.marks = None if marks is None else torch.from_numpy(marks).to(self.worker.device)
        self.stop = Stop(settings, 0 if marks is None else len(np.setdiff1d(marks, IGNORE)))
        self.steps = 0

    def step(self) -> bool:
        """One update; whether it was the last.

        Raises:
            UserError: the learning rate is too high.
        """
        labels, _ = self.worker.step(self.prepared, self.marks)
        self.steps += 1
        return self.stop.now(labels) or self.steps >= self.settings.steps

    def labels(self) -> np.ndarray:
        """The label map as it is now, (H,W) uint8 at the image's own size."""
        small = self.worker.labels(self.prepared).cpu().numpy().astype(np.uint8)
        return enlarge(small, self.image)


def cluster(
    image: np.ndarray, scribble: np.ndarray | None, settings: Clustering, seed: int,
    device: torch.device | None = None, half: bool = False,
) -> np.ndarray:  # fmt: skip
    """Segment an image, on its own or from scribbles: labels (H,W) uint8. Arguments as of `Session`."""
    session = Session(image, scribble, settings, seed, device, half)
    while not session.step():
        pass
    return session.labels()


def check_scribble(
    scribble: np.ndarray, size: tuple[int, ...], channels: int, object_wanted: bool = True
) -> None:
    """Raise `UserError` unless a scribble (H,W) fits an image of `size` and q channels.

    Args:
        object_wanted: a mark other than background, too.
    """
    if scribble.shape != tuple(size):
        (h, w), (height, width) = scribble.shape, size
        raise UserError(f"the scribble is {w}x{h}, the image {width}x{height}; draw on an image of its size")
    marks = np.setdiff1d(scribble, IGNORE)
    if not object_wanted and not len(marks):  # a box as large as the image
        return
    if not len(marks):
        raise UserError("the scribble marks nothing; draw with a label, such as 1, and leave the rest 255")
    if marks.max() >= channels:
        raise UserError(
            f"the scribble has label {marks.max()}; allowed: 0 (background) to {channels - 1}, and 255 for "
            "what is not marked"
        )
    if object_wanted and not marks.any():
        raise UserError("the scribble marks background (0) only; mark something with a label from 1 on, too")


def at_working_size(
    image: np.ndarray, scribble: np.ndarray | None, size: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and scribble with the longest side at most `size`; scribbles by their pixels' places.

    A reduced picture of a scribble would lose thin ones; where labels meet in a pixel the highest stays.
    """
    longest = max(image.shape[:2])
    if size is None or longest <= size:
        return image, scribble
    h, w = (max(round(side * size / longest), 1) for side in image.shape[:2])
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    if scribble is None:
        return small, None
    marks = np.full((h, w), IGNORE, np.uint8)
    for label in np.setdiff1d(scribble, IGNORE):
        y, x = np.nonzero(scribble == label)
        marks[y * h // image.shape[0], x * w // image.shape[1]] = label
    return small, marks
