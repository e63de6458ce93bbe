"""Un-augmented episodes from features that are computed once per image and kept within a memory budget."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fss.data.episodes import Picture, PictureSet, photo_mask
from fss.data.loading import load_batches
from fss.data.plan import Draw
from fss.heads import Encoded, Features, Head
from fss.model import FewShotModel
from fss.ops import binary_mask
from fss.testing.memory import budget

Supports = Callable[[int, int], Tensor]  # position, class -> mask (S,S) of 0, 1 and 255


class Encoder(Protocol):
    """Maker of the features of one image. It must not change while a store is in use.

    Attributes:
        alike: whether a support is encoded as a query is, so that one encoding serves both.
        cuts: whether a support's encoding depends on its mask.
        query_only: names of features that supports go without.
        corners: as of `Encoded`.
    """

    alike: bool
    cuts: bool
    query_only: tuple[str, ...]
    corners: bool

    def query(self, image: Tensor) -> Features:
        """RGB (1,3,S,S) -> {name: (1,...)}."""

    def support(self, image: Tensor, mask: Tensor) -> Features:
        """RGB (1,3,S,S) and mask (1,S,S) -> {name: (1,...)}."""


class WholeEncoding:
    """A model's encoding, the head's part included: for a head that does not change any more."""

    def __init__(self, model: FewShotModel) -> None:
        self.model, head = model, model.head
        self.alike, self.cuts = head.encodes_alike, head.support_cut != "nothing"
        self.query_only, self.corners = head.query_only, model.corners

    def query(self, image: Tensor) -> Features:
        """As of `Encoder`."""
        return self.model.encode(image)

    def support(self, image: Tensor, mask: Tensor) -> Features:
        """As of `Encoder`."""
        return self.model.encode_support(image, mask)


class FrozenEncoding(WholeEncoding):
    """The frozen part alone, while the head learns: `encode_now` does the rest."""

    def __init__(self, model: FewShotModel) -> None:
        super().__init__(model)
        self.alike, self.query_only = not self.cuts, ()

    def query(self, image: Tensor) -> Features:
        """As of `Encoder`."""
        return self.model.extract(image)

    def support(self, image: Tensor, mask: Tensor) -> Features:
        """As of `Encoder`."""
        return self.model.extract(image, mask)


def encode_now(head: Head, episodes: Encoded) -> Encoded:
    """Episodes of `FrozenEncoding` after the head's own encoding; what is prepared is beyond it."""
    if episodes.prepared:
        return episodes
    shape, frozen = episodes.support_masks.shape[:2], episodes.support
    with head.support_gradients():
        theirs = head.encode_support({k: x.flatten(0, 1) for k, x in frozen.items()})
    support = {k: x.unflatten(0, shape) for k, x in theirs.items() if k not in head.query_only}
    return replace(episodes, query=head.encode(episodes.query), support=support)


@dataclass
class Ready:
    """A batch of B planned episodes whose images are encoded already.

    Attributes:
        encoded: what every head may see: no query's mask.
        query_mask: (B,S,S) of 0, 1 and 255.
        class_id: (B,) labels of the data set.
        originals: the queries' binary masks at original size, each (H,W), where they were asked for.
    """

    draws: Sequence[Draw]
    encoded: Encoded
    query_mask: Tensor
    class_id: Tensor
    originals: list[Tensor]


class _Key(NamedTuple):
    """An encoding: of an image as query (or as both), as support, or as support of one class."""

    position: int
    role: str
    class_id: int = 0


@dataclass
class _Image:
    """The kept parts of an image beside its features."""

    labels: Tensor
    photo: tuple[int, int]  # h, w of the canvas that it fills
    original: Tensor | None


class FeatureStore:
    """Encodes images on demand and keeps as many as fit in RAM; episodes then share them.

    Encodings are kept first come, first served: queries cycle through a list, where replacing the least
    recently used would keep exactly the wrong ones. They lie in the host's memory and are copied to the
    device a batch at a time.

    Args:
        gib: RAM for encodings that are kept, as of `memory.budget`, which is asked when the first one is
            made: two stores of a run then share what is free.
        supports: where support masks come from; default: the true ones.
    """

    def __init__(
        self, pictures: PictureSet, encoder: Encoder, device: torch.device, gib: float | None,
        workers: int | None, supports: Supports | None = None,
    ) -> None:  # fmt: skip
        self.pictures, self.encoder, self.device = pictures, encoder, device
        self.gib, self.workers, self.supports = gib, workers, supports
        self.features: dict[_Key, Features] = {}
        self.images: dict[int, _Image] = {}
        self.promised: set[_Key] = set()  # will be kept once they arrive
        self.capacity: int | None = None

    def episodes(self, chunks: Iterable[Sequence[Draw]]) -> Iterator[Ready]:
        """Yield each chunk of draws as a batch of episodes, in order.

        Raises:
            UserError: an image or mask cannot be read.
        """
        waiting: deque[tuple[Sequence[Draw], set[_Key]]] = deque()
        loads = self._loads(chunks, waiting)
        for pictures in load_batches(self.pictures, loads, list, self.workers):
            draws, missing = waiting.popleft()
            there = {p.position: p for p in pictures}
            fresh = {key: self._encode(key, there[key.position]) for key in sorted(missing)}
            self.features |= {key: f for key, f in fresh.items() if key in self.promised}
            images = {p.position: self._image(p) for p in pictures}
            kept = {key.position for key in fresh if key in self.promised}
            self.images |= {i: image for i, image in images.items() if i in kept}
            yield self._assemble(draws, {**self.features, **fresh}.__getitem__, {**self.images, **images})

    def _keys(self, draw: Draw) -> list[_Key]:
        """The encodings that an episode needs: of its query, then of its supports."""
        role = "query" if self.encoder.alike else "support"
        class_id = draw.class_id if self.encoder.cuts else 0
        return [_Key(draw.query, "query"), *(_Key(i, role, class_id) for i in draw.supports)]

    def _loads(
        self, chunks: Iterable[Sequence[Draw]], waiting: deque[tuple[Sequence[Draw], set[_Key]]]
    ) -> Iterator[list[int]]:
        """For each chunk, the images that must be read for it: runs ahead of the episodes, in their order."""
        for draws in chunks:
            missing = {key for d in draws for key in self._keys(d)} - self.promised
            if self.capacity is None and missing:
                self.capacity = self._measure(missing)
            room = max((self.capacity or 0) - len(self.promised), 0)
            self.promised |= set(sorted(missing)[:room])
            waiting.append((draws, missing))
            yield sorted({key.position for key in missing})

    def _measure(self, missing: set[_Key]) -> int:
        """How many encodings fit into the budget, by making one of each role."""
        largest = 1
        for key in {key.role: key for key in sorted(missing, reverse=True)}.values():
            picture = self.pictures.load(key.position)
            image, features = self._image(picture), self._encode(key, picture)
            kept = [*features.values(), image.labels, *([] if image.original is None else [image.original])]
            largest = max(largest, sum(t.nbytes for t in kept))
        return int(budget(self.gib) // largest)

    @staticmethod
    def _image(picture: Picture) -> _Image:
        return _Image(picture.labels, picture.photo, picture.original)

    @torch.no_grad()
    def _encode(self, key: _Key, picture: Picture) -> Features:
        # One image at a time: its features then depend on no neighbour, so that neither batch size nor
        # process count can change a count.
        image = picture.image[None].to(self.device)
        if key.role == "query":
            features = self.encoder.query(image)
        else:
            cuts = self.encoder.cuts  # else the key is of every class, and the mask is none of its business
            mask = self._support_mask(key.position, key.class_id, picture.labels) if cuts else picture.labels
            features = self.encoder.support(image, mask[None].to(self.device))
        return {k: v[0].cpu() for k, v in features.items()}

    def _support_mask(self, position: int, class_id: int, labels: Tensor) -> Tensor:
        """(S,S) of 0, 1 and 255, on the host."""
        if self.supports is not None:
            return self.supports(position, class_id).long()
        return binary_mask(labels[None], self._value(class_id))[0]

    def _value(self, class_id: int) -> Tensor:
        """(1,) the class's value in masks."""
        return torch.tensor([self.pictures.source.value(class_id)])

    def _assemble(
        self, draws: Sequence[Draw], features: Callable[[_Key], Features], images: dict[int, _Image]
    ) -> Ready:
        keys = [self._keys(d) for d in draws]
        queries = [features(own[0]) for own in keys]
        supports = [[features(key) for key in own[1:]] for own in keys]
        values = torch.cat([self._value(d.class_id) for d in draws])
        masks = [
            torch.stack([self._support_mask(i, d.class_id, images[i].labels) for i in d.supports])
            for d in draws
        ]
        names = [k for k in supports[0][0] if k not in self.encoder.query_only]
        on = self.device
        encoded = Encoded(
            query={k: torch.stack([q[k] for q in queries]).to(on) for k in queries[0]},
            support={
                k: torch.stack([torch.stack([s[k] for s in row]) for row in supports]).to(on) for k in names
            },
            support_masks=torch.stack(masks).to(on),
            seeds=[d.seed for d in draws],
            corners=self.encoder.corners,
            photo=torch.stack(
                [photo_mask(images[d.query].photo, self.pictures.canvas.size) for d in draws]
            ).to(on),
            base_class=torch.tensor([self.pictures.source.base_number(d.class_id) for d in draws], device=on),
        )
        originals = [images[d.query].original for d in draws]
        return Ready(
            draws=draws,
            encoded=encoded,
            query_mask=binary_mask(torch.stack([images[d.query].labels for d in draws]), values).to(on),
            class_id=torch.tensor([d.class_id for d in draws], device=on),
            originals=[
                binary_mask(o[None], v[None])[0]
                for o, v in zip(originals, values, strict=True)
                if o is not None
            ],
        )
