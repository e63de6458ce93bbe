"""What a head is: the contract that trainer, evaluator and model rely on, and all they know of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

Features = dict[str, Tensor]


@dataclass
class HeadOutput:
    """What a head returns for B episodes.

    Attributes:
        logits: (B,2,h,w), background first, at any resolution.
        losses: scalars of the head's own; the trainer adds its cross-entropy and sums all.
        notes: (B,) booleans worth counting, such as "empty_support"; results report how many.
    """

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Panel:
    """A map that explains a prediction, for pictures.

    Attributes:
        title: of the panel.
        values: on "support" (B,K,h,w), on "query" (B,h,w). Whole numbers are drawn as colours, one each,
            -1 not at all; floats, from 0 to 1, as heat. With a last axis of 2 more, offsets in cells, x
            then y: direction and length are drawn as colours and arrows.
        over: which images it lies over, "support" or "query".
        points: (B,K,N,2) or (B,N,2) row and column in cells, drawn as dots; NaN for none.
        captions: texts behind the title, one an episode, such as a number that belongs to the map.
    """

    title: str
    values: Tensor
    over: Literal["support", "query"]
    points: Tensor | None = None
    captions: Sequence[str] = ()

    def of(self, i: int) -> "Panel":
        """Episode i's part, without batch axis."""
        title = f"{self.title}, {self.captions[i]}" if self.captions else self.title
        return Panel(title, self.values[i], self.over, None if self.points is None else self.points[i])


@dataclass
class Encoded:
    """What a head sees of B episodes with K supports each.

    Attributes:
        query: {level: (B,C,h,w)}, as `Head.encode` made them.
        support: {level: (B,K,C,h,w)}, as `Head.encode_support` made them.
        support_masks: (B,K,H,W) of 0, 1 and 255.
        seeds: B numbers, one an episode: the source of all that is random in it.
        corners: whether the corner cells of maps lie on the corner pixels (`Backbone.corners`);
            `fss.ops.resize` takes it.
        query_mask: (B,H,W) of 0, 1 and 255 in training, for losses of the head's own; None in testing, but
            for a head that `sees_query_mask`.
        photo: (B,H,W) bool, where the query's canvas holds its photo and not its padding; None for
            everywhere.
        base_class: (B,) which base class it is, from 0; -1 for a novel one. None where nobody knows.
        network: images (B,3,H,W) -> the frozen maps at the head's levels, for a head that asks the network
            about an image of its own. It is one object for as long as the network stays as it is.
        prepared: whether `query` holds what `Head.prepare` made of all this.
    """

    query: Features
    support: Features
    support_masks: Tensor
    seeds: Sequence[int]
    corners: bool = True
    query_mask: Tensor | None = None
    photo: Tensor | None = None
    base_class: Tensor | None = None
    network: Callable[[Tensor], Features] | None = None
    prepared: bool = False

    def __len__(self) -> int:
        """B."""
        return len(self.support_masks)

    def part(self, first: int, last: int) -> "Encoded":
        """Episodes `first` to `last` - 1."""
        cut = lambda x: None if x is None else x[first:last]  # noqa: E731
        return replace(
            self,
            query={k: v[first:last] for k, v in self.query.items()},
            support={k: v[first:last] for k, v in self.support.items()},
            support_masks=self.support_masks[first:last],
            seeds=self.seeds[first:last],
            query_mask=cut(self.query_mask),
            photo=cut(self.photo),
            base_class=cut(self.base_class),
        )


Cut = Literal["nothing", "stage4", "image"]


def of_stage4(level: str) -> bool:
    """Whether a level is stage 4 or a block of it."""
    return level.partition(".")[0] == "stage4"


def check_cut(cut: Cut, levels: Sequence[str]) -> None:
    """`ValueError` where stage 4 is cut and no level is of it."""
    if cut == "stage4" and not any(map(of_stage4, levels)):
        raise ValueError(f"cut={cut} has no part in {', '.join(levels)}; allowed there: nothing, image")


class Head(nn.Module):
    """Base class of all heads. A head takes plain keyword arguments; `channels` comes from the network, and
    so does `strides` (level -> pixels from cell to cell) where its constructor has an argument of that name.
    Likewise `train_shots`, K of its training, for heads whose parameters are of one K.

    Attributes:
        levels: feature maps it needs; nothing deeper is computed. "stage1" to "stage4", and the single blocks
            that the backbone offers ("stage3.2", "stage3.2:sum"); where there is a base network, "neck",
            "neck:sum" (the neck's map before its last ReLU) and "base" (the base classifier's logits,
            background first).
        corners: whether the network's corner cells lie on the corner pixels; the model sets it.
        support_cut: what is cut by a support's mask before the network goes on: "nothing"; "stage4": stage 4
            and its blocks are computed from stage 3 times the mask, and all else of the whole image; "image":
            pixels outside the mask become the mean colour. What is cut is encoded once for each image and
            class.
        encodes_mask: whether `encode_support` gets the supports' masks, "mask" (B,H,W), beside the levels;
            for heads that cut.
        query_only: names, of what `encode` returns, that only queries need; supports go without them, and an
            `encode_support` of its own gets no levels of these names.
        balanced_loss: whether the trainer weights the foreground by background / foreground pixels.
        learns_from_support: whether gradients reach `encode_support` through the support; without, training
            keeps nothing of the supports' encoding in memory.
        sees_query_mask: whether tests hand it the query's label, which no prediction has: for published
            settings and upper bounds. Results say so.
    """

    corners = True
    levels: tuple[str, ...] = ("neck",)
    support_cut: Cut = "nothing"
    encodes_mask = False
    query_only: tuple[str, ...] = ()
    balanced_loss = False
    learns_from_support = True
    sees_query_mask = False

    def __init__(self, channels: Mapping[str, int]) -> None:
        """Take `channels`: level -> C, for all levels of the network."""
        super().__init__()
        unknown = [level for level in self.levels if level not in channels]
        if unknown:
            offered = ", ".join(level for level in channels if "." not in level)
            raise ValueError(
                f"it needs {', '.join(unknown)}, and this network has {offered}. A neck comes with "
                "network=base"
            )

    def encode(self, features: Features) -> Features:
        """The per-image part, which knows no partner: {level: (B,C,h,w)} -> the same kind.

        Evaluation computes it once per image and keeps the result. It must not mix the images of a
        batch (no batch norm that learns): they come in other groups each time.
        """
        return features

    def encode_support(self, features: Features) -> Features:
        """`encode` for supports, where they are encoded otherwise than queries."""
        return self.encode(features)

    def prepare(self, episodes: Encoded) -> Encoded:
        """The parameter-free beginning of `forward`, for heads that have one.

        `train.same_episodes` computes it once an episode. It returns the episodes with `prepared` set and
        everything that `forward` still needs in `query`, {name: (B,...)}; `support` may be empty. `forward`
        takes prepared episodes and others.
        """
        return episodes

    def forward(self, episodes: Encoded) -> HeadOutput:
        """Segment the queries."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def explain(self, episodes: Encoded) -> list[Panel]:
        """Maps that show how the prediction comes about. None by default."""
        return []

    def groups(self) -> list[dict[str, Any]] | None:
        """The optimiser's parameter groups, each with a "factor" on the learning rate; None where all
        learn alike."""
        return None

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn from episodes."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def prepares(self) -> bool:
        """Whether it has a `prepare` of its own."""
        return type(self).prepare is not Head.prepare

    @property
    def encodes_alike(self) -> bool:
        """Whether a support is encoded as a query is, so that one encoding of an image serves both."""
        return self.support_cut == "nothing" and type(self).encode_support is Head.encode_support

    @property
    def support_levels(self) -> tuple[str, ...]:
        """The levels that supports are encoded from."""
        own = type(self).encode_support is not Head.encode_support
        return tuple(x for x in self.levels if not (own and x in self.query_only))

    def support_gradients(self) -> torch.set_grad_enabled:
        """The context in which supports are encoded: without gradients, where none are needed."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.learns_from_support)


def blocks_of(stage: str, channels: Mapping[str, int]) -> list[str]:
    """All blocks of a stage, from first to last, before their last ReLU where the network offers that; the
    stage itself where it offers no blocks."""
    blocks = [level for level in channels if level.startswith(f"{stage}.")]
    return [level for level in blocks if level.endswith(":sum")] or blocks or [stage]
