"""Segmentation by what one frozen network sees, without anything learned.

INSID3, CVPR 2026, https://arxiv.org/abs/2603.28480; published on DINOv3 alone.

The mean feature of the supports' objects says where to look in the query, with the network's sense of
position taken off; how far the object goes there, the query's own cells say, in clusters.
"""

import importlib.util
import math
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.errors import UserError
from fss.heads.base import Encoded, Features, Head, HeadOutput, Panel
from fss.heads.cells import joined, nearest
from fss.ops import exporting, resize, without_foreground

MAP = "map"  # the one map that is kept of an image
_SHARE = 500 / 1024  # of the channels of DINOv3-L, that positions take up as published
_QUANTILE = 0.9  # of the cosines, where none is above 0
_LEAST = 1e-6  # of the largest singular value: a direction that is shorter is rounding


class INSID3(Head):
    """INSID3 on a map of any network.

    Without foreground in any support the prediction is empty ("empty_support").

    Args:
        level: the feature map, or several, as of `fss.heads.cells.joined`.
        components: directions of position that are taken off before two images are compared; 0 for none.
            None: 500 of 1,024 channels, as published for DINOv3-L, and as large a share of others.
        tau: clusters are joined while the mean cosine of their cells is above it.
        merge: a cluster is foreground where its score is above it.
    """

    def __init__(
        self, channels: Mapping[str, int], level: str | list[str] = "stage4", components: int | None = None,
        tau: float = 0.6, merge: float = 0.2,
    ) -> None:  # fmt: skip
        if importlib.util.find_spec("scipy") is None:
            raise UserError("head 'insid3' clusters with scipy, which is not installed: pip install scipy")
        if not -1 < tau < 1 or not 0 <= merge < 1:
            raise ValueError(f"tau={tau}, merge={merge}; allowed: above -1 to below 1, and 0 to below 1")
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        super().__init__(channels)
        width = sum(channels[name] for name in self.levels)
        if components is not None and not 0 <= components < width:
            raise ValueError(f"components={components}; allowed: 0 to {width - 1}, of {width} channels")
        self.components = round(_SHARE * width) if components is None else components
        self.tau, self.merge = tau, merge
        self._bases: dict[tuple[int, int], Tensor] = {}  # size of images -> their positions' basis
        self._basis_network: Any = None  # the network that they are of

    def encode(self, features: Features) -> Features:
        """The joined map, cells of length 1: {MAP: (B,C,h,w)}, float32."""
        with torch.autocast(features[self.levels[0]].device.type, enabled=False):
            return {MAP: F.normalize(joined(features, self.levels, self.corners), dim=1)}

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Masks of the images' size: logits (0, 1/2) on the object, (0, -1/2) elsewhere, (B,2,H,W)."""
        masks = torch.stack([x.foreground.float() for x in self._segmented(episodes)])  # (B,n)
        coarse = masks.unflatten(1, episodes.query[MAP].shape[-2:])[:, None]  # (B,1,h,w)
        h, w = episodes.support_masks.shape[-2:]
        # As published, what has another size than the images is a resize of this mask, not of the cells.
        lead = (resize(coarse, (h, w), episodes.corners) > 0.5).float() - 0.5
        notes = {"empty_support": without_foreground(episodes.support_masks)}
        return HeadOutput(torch.cat([torch.zeros_like(lead), lead], 1), notes=notes)

    def explain(self, episodes: Encoded) -> list[Panel]:
        """Cosine with the supports' mean; the candidates; the query's clusters; their scores."""
        every = self._segmented(episodes)
        size = episodes.query[MAP].shape[-2:]
        maps = lambda name: torch.stack([getattr(x, name) for x in every]).unflatten(1, size)  # noqa: E731
        return [
            Panel("like the supports", maps("cosine").clamp(0, 1), "query"),
            Panel("candidates", maps("candidates").long() - 1, "query"),
            Panel("clusters", maps("clusters"), "query"),
            Panel("score", maps("score").clamp(0, 1), "query"),
        ]

    @torch.no_grad()
    def _segmented(self, episodes: Encoded) -> list["Segmentation"]:
        """Each episode on its own."""
        if exporting():
            raise UserError("INSID3 clusters each query outside of PyTorch, which no exported file can hold")
        with torch.autocast(episodes.support_masks.device.type, enabled=False):
            return [self._segment(task) for task in self._tasks(episodes)]

    def _tasks(self, e: Encoded) -> Iterator["Task"]:
        query, support = e.query[MAP], e.support[MAP]  # (B,C,h,w), (B,K,C,h,w)
        size, basis = (query.shape[-2], query.shape[-1]), self._basis(e)
        photo = torch.ones_like(query[:, 0]) if e.photo is None else nearest(e.photo, size)  # (B,h,w)
        for i in range(len(e)):
            masks = at_cells(e.support_masks[i], size, e.corners).flatten(1)  # (K,n)
            cells, shown = _list(query[i].float()), masks.any(1)
            others = _list(support[i, shown].float())  # (.,n,C)
            on_photo = photo[i].flatten() > 0
            yield Task(cells, debiased(cells, basis), debiased(others, basis), masks[shown], on_photo)

    def _basis(self, e: Encoded) -> Tensor:
        """The positions' directions (C,k) at the size of these images: computed once, and again when the
        network changes.

        Raises:
            UserError: there is no network to ask.
        """
        if self.components == 0:
            return e.query[MAP].new_zeros(e.query[MAP].shape[1], 0)
        if e.network is None:
            raise UserError("INSID3 asks the network about a black image: give Encoded its `network`")
        if self._basis_network is None or self._basis_network() is not e.network:
            self._bases, self._basis_network = {}, weakref.ref(e.network)
        h, w = e.support_masks.shape[-2:]
        if (h, w) not in self._bases:
            black = torch.zeros(1, 3, h, w, device=e.support_masks.device)
            self._bases[h, w] = positions(self.encode(e.network(black))[MAP][0], self.components)
        return self._bases[h, w]

    def _segment(self, task: "Task") -> "Segmentation":
        """One episode, step by step."""
        reference, on_photo = prototype(task), task.on_photo
        cosine = task.apart @ reference  # (n,)
        chosen = candidates(task, cosine)
        clusters, score = torch.full_like(chosen, -1, dtype=torch.int64), torch.zeros_like(cosine)
        if chosen.any():
            clusters[on_photo] = clustered(task.cells[on_photo], 1 - self.tau)
            own = scores(task, clusters, reference, chosen).product  # (G,)
            score[on_photo] = own[clusters[on_photo]]
        return Segmentation(cosine, chosen, clusters, score, score > self.merge)


class Task(NamedTuple):
    """One episode: n cells of the query, and m of each of the K supports that show the object.

    Attributes:
        cells: the query's features of length 1, (n,C).
        apart: the same without position, (n,C).
        others: the supports' without position, (K,m,C).
        masks: which of their cells are the object's, (K,m) bool.
        on_photo: which of the query's cells are of its photo, (n,) bool.
    """

    cells: Tensor
    apart: Tensor
    others: Tensor
    masks: Tensor
    on_photo: Tensor


class Segmentation(NamedTuple):
    """The answer to an episode and the steps to it, for each of the query's n cells: (n,).

    Attributes:
        cosine: with the supports' prototype.
        candidates: whether it looks like the object, and the object's cells like it; bool.
        clusters: the number of its cluster; -1 for none.
        score: of its cluster.
        foreground: bool.
    """

    cosine: Tensor
    candidates: Tensor
    clusters: Tensor
    score: Tensor
    foreground: Tensor


class Scores(NamedTuple):
    """How much each of G clusters is part of the object, (G,), and which of them is its seed.

    Attributes:
        cross: mean cosine of its cells with the supports' prototype.
        intra: cosine of its own features with the seed's.
        area: share of its cells that are candidates; 1 for the seed.
    """

    cross: Tensor
    intra: Tensor
    area: Tensor
    seed: int

    @property
    def product(self) -> Tensor:
        """(G,)."""
        return self.cross * self.intra * self.area


def positions(black: Tensor, components: int) -> Tensor:
    """What the features of a black image vary in, all of which is position: black (C,h,w) -> basis (C,k).

    Left singular vectors of the largest singular values. A direction without length counts as none, so that
    k may be below `components`.
    """
    cells = black.flatten(1).double()  # (C,n)
    cells = cells - cells.mean(1, keepdim=True)
    vectors, lengths, _ = torch.linalg.svd(cells, full_matrices=False)  # (C,.), the longest first
    there = lengths > _LEAST * lengths[0]
    return vectors[:, there][:, :components].to(black.dtype)


def debiased(cells: Tensor, basis: Tensor) -> Tensor:
    """Features (...,C) without their parts along a basis (C,k), of length 1."""
    return F.normalize(cells - (cells @ basis) @ basis.T, dim=-1)


def at_cells(masks: Tensor, cells: tuple[int, int], corners: bool) -> Tensor:
    """Which cells the foreground of masks (K,H,W) holds, (K,h,w) bool; a mask with any has one cell at least.

    More than half of a cell, by a bilinear resize; where no cell has that, the pixel that the cell takes;
    where none takes any, the cell of the foreground's mean.
    """
    inside = masks == 1
    own = resize(inside.float()[None], cells, corners)[0] > 0.5
    for k in (inside.flatten(1).any(1) & ~own.flatten(1).any(1)).nonzero()[:, 0].tolist():
        own[k] = nearest(inside[k], cells)
        if not own[k].any():
            places = inside[k].nonzero().double().mean(0).tolist()  # row, column
            sides = zip(places, cells, inside.shape[-2:], strict=True)
            row, column = (int(place / (side / count)) for place, count, side in sides)
            own[k, row, column] = True
    return own


def prototype(task: Task) -> Tensor:
    """The mean over supports of their objects' mean features, of length 1: (C,); zeros without supports."""
    masks = task.masks.float()  # (K,m)
    means = (masks[:, None] @ task.others)[:, 0] / masks.sum(1, keepdim=True)  # (K,C)
    return F.normalize(means.sum(0), dim=0)


def candidates(task: Task, cosine: Tensor) -> Tensor:
    """Cells (n,) whose cosine with the prototype is above 0, and which are most like a cell of the object in
    half of the supports or more. Where no cosine is above 0, those of the uppermost tenth take its part."""
    shots = len(task.masks)
    likely = (cosine > 0) & task.on_photo
    if task.on_photo.any() and not likely.any():
        likely = (cosine > cosine[task.on_photo].quantile(_QUANTILE)) & task.on_photo
    if shots == 0 or not likely.any():
        return torch.zeros_like(likely)
    own = task.apart[likely]  # no other cell can be one
    votes = [mask[(own @ other.T).argmax(1)] for other, mask in zip(task.others, task.masks, strict=True)]
    chosen = likely.clone()
    chosen[likely] = torch.stack(votes).sum(0) >= math.ceil(shots / 2)
    return chosen


def clustered(cells: Tensor, cut: float) -> Tensor:
    """Clusters (n,) of cells (n,C) of length 1, numbered as they come: average linkage by cosine distance, up
    to distance `cut`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(cells) < 2:
        return torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
    distance = (1 - cells @ cells.T).clamp(min=0).double().cpu().numpy()  # (n,n)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), cut, "distance")
    first: dict[int, int] = {}
    return torch.tensor([first.setdefault(label, len(first)) for label in labels.tolist()]).to(cells.device)


def scores(task: Task, clusters: Tensor, reference: Tensor, chosen: Tensor) -> Scores:
    """The scores of clusters (n,), -1 for none, by the supports' prototype (C,) and the candidates (n,), of
    which there is one at least."""
    numbers = torch.arange(int(clusters.max()) + 1, device=clusters.device)
    member = (clusters == numbers[:, None]).float()  # (G,n)
    count = member.sum(1)
    area = member @ chosen.float() / count
    close = F.normalize(member @ task.apart, dim=1) @ reference
    seed = int(close.masked_fill(area == 0, -math.inf).argmax())
    own = F.normalize(member @ task.cells, dim=1)  # (G,C)
    area[seed] = 1
    return Scores(member @ (task.apart @ reference) / count, own @ own[seed], area, seed)


def _list(maps: Tensor) -> Tensor:
    """(...,C,h,w) -> (...,h*w,C)."""
    return maps.flatten(-2).transpose(-2, -1)
