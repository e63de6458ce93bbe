"""Un-augmented episodes from features that are computed once per image and kept within a memory budget."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fss.data.episodes import Picture, PictureSet, Prepare
from fss.data.loading import load_batches
from fss.data.plan import Draw
from fss.heads import Features, Head
from fss.ops import binary_mask

Supports = Callable[[int, int], Tensor]  # position, class -> mask (S,S) of 0, 1 and 255


@dataclass
class Ready:
    """A batch of B episodes whose images are encoded already.

    Attributes:
        query: {level: (B,C,h,w)}; support: {level: (B,K,C,h,w)}.
        query_mask: (B,S,S); support_masks: (B,K,S,S); as in `Episode`.
        originals: the queries' binary masks at original size, each (H,W), where they were asked for.
        extras: from the head's `prepare`.
    """

    draws: Sequence[Draw]
    query: Features
    support: Features
    query_mask: Tensor
    support_masks: Tensor
    class_id: Tensor
    originals: list[Tensor]
    extras: dict[str, Tensor]

    def encoded(self, head: Head) -> tuple[Features, Features]:
        """Query and support after the head's `encode`, for features that were kept before it."""
        shape, support = self.support_masks.shape[:2], {k: x.flatten(0, 1) for k, x in self.support.items()}
        with head.support_gradients():
            theirs = {k: x.unflatten(0, shape) for k, x in head.encode(support).items()}
        return head.encode(self.query), {k: x for k, x in theirs.items() if k not in head.query_only}


@dataclass
class _Kept:
    features: Features  # {level: (C,h,w)}
    labels: Tensor
    original: Tensor | None


class FeatureStore:
    """Encodes images on demand and keeps as many as fit; episodes then share them.

    Images are kept first come, first served: queries cycle through a list, where replacing the least
    recently used would keep exactly the wrong ones.

    Args:
        encode: images (B,3,S,S) -> features: the model's whole encoding, or, while the head learns, the
            frozen part alone. Must not change while the store is in use.
        prepare: the head's `prepare`.
        budget: bytes for what is kept.
        query_only: features that supports go without.
        supports: where support masks come from; default: the true ones.
    """

    def __init__(
        self, pictures: PictureSet, encode: Callable[[Tensor], Features], prepare: Prepare,
        device: torch.device, budget: float, workers: int | None, query_only: tuple[str, ...] = (),
        supports: Supports | None = None,
    ) -> None:  # fmt: skip
        self.pictures, self.encode, self.prepare = pictures, encode, prepare
        self.device, self.budget, self.workers = device, budget, workers
        self.query_only, self.supports = query_only, supports
        self.kept: dict[int, _Kept] = {}
        self.promised: set[int] = set()  # will be kept once they arrive
        self.capacity: int | None = None

    def episodes(self, chunks: Iterable[Sequence[Draw]]) -> Iterator[Ready]:
        """Yield each chunk of draws as a batch of episodes, in order.

        Raises:
            UserError: an image or mask cannot be read.
        """
        waiting: deque[Sequence[Draw]] = deque()
        loads = self._loads(chunks, waiting)
        for pictures in load_batches(self.pictures, loads, list, self.workers):
            draws = waiting.popleft()
            fresh = {p.position: self._encode(p) for p in pictures}
            self.kept |= {i: kept for i, kept in fresh.items() if i in self.promised}
            yield self._assemble(draws, fresh)

    def _loads(self, chunks: Iterable[Sequence[Draw]], waiting: deque[Sequence[Draw]]) -> Iterator[list[int]]:
        """For each chunk, the images that must be read for it: runs ahead of the episodes, in their order."""
        for draws in chunks:
            missing = sorted({i for d in draws for i in d.images} - self.promised)
            if self.capacity is None and missing:
                self.capacity = self._measure(missing[0])
            self.promised |= set(missing[: max(self.capacity or 0, len(self.promised)) - len(self.promised)])
            waiting.append(draws)
            yield missing

    def _measure(self, position: int) -> int:
        """How many images fit into the budget, by encoding one."""
        kept = self._encode(self.pictures.load(position))
        tensors = [
            *kept.features.values(),
            kept.labels,
            *([kept.original] if kept.original is not None else []),
        ]
        return int(self.budget // sum(t.nbytes for t in tensors))

    @torch.no_grad()
    def _encode(self, picture: Picture) -> _Kept:
        # One image at a time: its features then depend on no neighbour, so that neither batch size nor
        # process count can change a count.
        features = self.encode(picture.image[None].to(self.device))
        return _Kept({k: v[0] for k, v in features.items()}, picture.labels.to(self.device), picture.original)

    def _assemble(self, draws: Sequence[Draw], fresh: dict[int, _Kept]) -> Ready:
        images = {i: fresh[i] if i in fresh else self.kept[i] for d in draws for i in d.images}
        queries = [images[d.query] for d in draws]
        supports = [[images[i] for i in d.supports] for d in draws]
        class_id = torch.tensor([d.class_id for d in draws], device=self.device)
        value = torch.tensor([self.pictures.source.value(d.class_id) for d in draws], device=self.device)
        if self.supports is None:
            labels = torch.stack([torch.stack([s.labels for s in row]) for row in supports])
            support_masks = binary_mask(labels, value)
        else:
            made = [torch.stack([self.supports(i, d.class_id) for i in d.supports]) for d in draws]
            support_masks = torch.stack(made).long().to(self.device)
        extras = [self.prepare(masks, d.seed) for masks, d in zip(support_masks.cpu(), draws, strict=True)]
        levels = queries[0].features
        return Ready(
            draws=draws,
            query={k: torch.stack([q.features[k] for q in queries]) for k in levels},
            support={
                k: torch.stack([torch.stack([s.features[k] for s in row]) for row in supports])
                for k in levels
                if k not in self.query_only
            },
            query_mask=binary_mask(torch.stack([q.labels for q in queries]), value),
            support_masks=support_masks,
            class_id=class_id,
            originals=[
                binary_mask(q.original[None], v[None].cpu())[0]
                for q, v in zip(queries, value, strict=True)
                if q.original is not None
            ],
            extras={k: torch.stack([e[k] for e in extras]).to(self.device) for k in extras[0]},
        )
