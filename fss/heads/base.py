"""What a head is: the contract that trainer, evaluator and model rely on, and all they know of it."""

from dataclasses import dataclass, field

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


class Head(nn.Module):
    """Base class of all heads. A head takes plain keyword arguments; `channels` comes from the network.

    Attributes:
        levels: feature maps it needs, of "stage1".."stage4" and "neck"; nothing deeper is computed.
        balanced_loss: whether the trainer weights the foreground by background / foreground pixels.
    """

    levels: tuple[str, ...] = ("neck",)
    balanced_loss = False

    def __init__(self, channels: dict[str, int]) -> None:
        """Take `channels`: level -> C, for all levels of the network."""
        super().__init__()
        unknown = [level for level in self.levels if level not in channels]
        if unknown:
            raise ValueError(f"{type(self).__name__}.levels names {unknown}; there are {list(channels)}")

    def prepare(self, support_masks: Tensor, seed: int) -> dict[str, Tensor]:
        """Tensors for `extras`, without batch axis, from masks (K,H,W) and the episode's own seed.

        Runs on the CPU in loader workers and must be pure: all randomness comes from `seed`.
        """
        return {}

    def encode(self, features: Features) -> Features:
        """The per-image part, which knows no partner: {level: (B,C,h,w)} -> the same kind.

        Evaluation computes it once per image and keeps the result.
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

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn in stage 2."""
        return any(True for _ in self.parameters())
