"""What a head is: the contract that trainer, evaluator and model rely on, and all they know of it."""

from dataclasses import dataclass, field
from typing import Literal

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
    """

    title: str
    values: Tensor
    over: Literal["support", "query"]
    points: Tensor | None = None

    def of(self, i: int) -> "Panel":
        """Episode i's part, without batch axis."""
        return Panel(self.title, self.values[i], self.over, None if self.points is None else self.points[i])


class Head(nn.Module):
    """Base class of all heads. A head takes plain keyword arguments; `channels` comes from the network.

    Attributes:
        levels: feature maps it needs, of "stage1".."stage4", "neck", "vit" and "vit_class"; nothing
            deeper is computed.
        balanced_loss: whether the trainer weights the foreground by background / foreground pixels.
        learns_from_support: whether gradients reach `encode` through the support; without, training
            keeps nothing of the supports' encoding in memory.
        query_only: what `encode` returns for the query's sake alone; dropped from the supports.
    """

    levels: tuple[str, ...] = ("neck",)
    balanced_loss = False
    learns_from_support = True
    query_only: tuple[str, ...] = ()

    def __init__(self, channels: dict[str, int]) -> None:
        """Take `channels`: level -> C, for all levels of the network."""
        super().__init__()
        unknown = [level for level in self.levels if level not in channels]
        if unknown:
            raise ValueError(
                f"it needs {', '.join(unknown)}, and this network has {', '.join(channels)}. "
                "The neck comes with backbone.stage1=true, vit with backbone.vit"
            )

    def prepare(self, support_masks: Tensor, seed: int) -> dict[str, Tensor]:
        """Tensors for `extras`, without batch axis, from masks (K,H,W) and the episode's own seed.

        Runs on the CPU in loader workers and must be pure: all randomness comes from `seed`.
        """
        return {}

    def prepare_in_graph(self, support_masks: Tensor) -> dict[str, Tensor] | None:
        """`prepare` as tensor operations on masks (K,H,W), for graphs that take masks (`fss export`).

        None, the default, where `prepare` depends on the seed alone: what it makes is a constant there.
        """
        return None

    def encode(self, features: Features) -> Features:
        """The per-image part, which knows no partner: {level: (B,C,h,w)} -> the same kind.

        Evaluation computes it once per image and keeps the result. It must not mix the images of a
        batch (no batch norm that learns): they come in other groups each time.
        """
        return features

    def forward(
        self,
        query: Features,
        support: Features,
        support_masks: Tensor,
        extras: dict[str, Tensor],
        query_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Segment the query.

        Args:
            query: {level: (B,C,h,w)} as encoded.
            support: {level: (B,K,C,h,w)} as encoded.
            support_masks: (B,K,H,W), 0, 1 and 255.
            extras: tensors (B,...) from `prepare`.
            query_mask: (B,H,W) in training, for losses of the head's own.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def explain(
        self, query: Features, support: Features, support_masks: Tensor, extras: dict[str, Tensor]
    ) -> list[Panel]:
        """Maps that show how the prediction comes about; arguments as of `forward`. None by default."""
        return []

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn in stage 2."""
        return any(p.requires_grad for p in self.parameters())

    def support_gradients(self) -> torch.set_grad_enabled:
        """The context in which supports are encoded: without gradients, where none are needed."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.learns_from_support)
