"""The only wiring: backbone + neck + classifier (stage 1), backbone + neck + head (episodes)."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from fss.backbones.fold import fold, state_of
from fss.backbones.frozen import checksum, freeze
from fss.backbones.resnet import STAGES, ResNet, stage_channels
from fss.backbones.vit import VIT_CHANNELS, Tokens
from fss.backbones.weights import find_weights, has_deep_stem, load_strict, read_weights
from fss.config import BackboneConfig, Config, NeckConfig
from fss.episode import IGNORE
from fss.errors import UserError
from fss.heads import Features, Head, HeadOutput, Panel, build_head
from fss.necks import Neck, make_neck
from fss.ops import normalise, resize


class BaseSegmenter(nn.Module):
    """Stage 1: an ordinary segmentation network for the base classes.

    Args:
        classes: base classes + background, the rows of the linear classifier.
    """

    def __init__(self, backbone: ResNet, neck: Neck, classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.classifier = nn.Conv2d(neck.channels, classes, 1, bias=neck.classifier_bias)
        self.sides = nn.ModuleDict(neck.side_classifiers(classes))

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B,3,H,W) -> {"base": (B,classes,h,w)}, and in training each auxiliary classifier's."""
        decoded = self.neck.decode(self.backbone(images, self.neck.levels))
        out = {"base": self.classifier(decoded.map)}
        if self.training:
            out |= {name: self.sides[name](x) for name, x in decoded.sides.items()}
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) -> logits (B,classes,h,w) at the neck's own resolution."""
        return self.logits(images)["base"]


class FewShotModel(nn.Module):
    """A frozen network and a head that learns.

    Args:
        neck: of stage 1, for heads that want its features.
        tokens: a vision transformer, for heads that want its tokens.
        bf16: compute the frozen part in bfloat16.

    Attributes:
        told: what its checkpoint says of itself and of its training; empty where it is of none.
        as_stored: compute the frozen part as it is stored, not as `fold` makes it (`fss export`).
    """

    head: Head
    told: dict[str, Any]
    as_stored = False

    def __init__(
        self, backbone: ResNet, neck: Neck | None, head: Head, tokens: Tokens | None = None,
        bf16: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = freeze(backbone)
        self.neck = freeze(neck) if neck else None
        self.tokens = freeze(tokens) if tokens else None
        self.head = head
        self.bf16, self.told = bf16, {}
        # As computed, and of which parameters. In a tuple, so that it is no part of checkpoints.
        self._folded: tuple[Any, ResNet, Neck | None] | None = None

    @property
    def frozen(self) -> list[nn.Module]:
        """All that never learns here."""
        return [m for m in (self.backbone, self.neck, self.tokens) if m is not None]

    def train(self, mode: bool = True) -> "FewShotModel":
        """Switch the head alone: a frozen network stays in evaluation mode."""
        self.training = mode
        self.head.train(mode)
        return self

    def _network(self) -> tuple[ResNet, Neck | None]:
        """Backbone and neck as they are computed; made anew when their parameters were changed."""
        if self.as_stored:
            return cast(ResNet, self.backbone), cast(Neck | None, self.neck)
        now = (self.bf16, state_of(self.backbone, self.neck))
        if self._folded is None or self._folded[0] != now:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            neck = None if self.neck is None else cast(Neck, fold(self.neck, dtype))
            self._folded = (now, cast(ResNet, fold(self.backbone, dtype)), neck)
        return self._folded[1:]

    @torch.no_grad()
    def extract(self, images: Tensor) -> Features:
        """Images (B,3,H,W), normalised or bytes -> frozen {level: (B,C,h,w)} at the head's levels."""
        images = normalise(images) if images.dtype == torch.uint8 else images
        levels = set(self.head.levels)
        backbone, neck = self._network()
        stages = levels.intersection(STAGES).union(neck.levels if neck and "neck" in levels else ())
        with torch.autocast(images.device.type, enabled=False):
            features = backbone(self._as_computed(images), stages) if stages else {}
            if neck and "neck" in levels:
                features["neck"] = neck(features)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            if self.tokens and levels.intersection(VIT_CHANNELS):
                features |= self.tokens(images)
        return {level: features[level] for level in self.head.levels}

    def _as_computed(self, images: Tensor) -> Tensor:
        return images.to(torch.bfloat16) if self.bf16 else images.float()

    @torch.no_grad()
    def explain_neck(self, images: Tensor) -> list[Panel]:
        """Images (B,3,H,W), normalised or bytes -> maps of the neck's offsets over them, as queries.

        None where the head does not stand on the neck, or the neck has no offsets.
        """
        backbone, neck = self._network()
        if neck is None or "neck" not in self.head.levels:
            return []
        images = normalise(images) if images.dtype == torch.uint8 else images
        with torch.autocast(images.device.type, enabled=False):
            offsets = neck.decode(backbone(self._as_computed(images), neck.levels)).offsets
        return [Panel(title, offset.movedim(1, -1), "query") for title, offset in offsets.items()]

    def encode(self, images: Tensor, without: tuple[str, ...] = ()) -> Features:
        """What the head keeps of an image, whatever its partners: images (B,3,H,W) -> {level: (B,...)}.

        A few images at a time, so that memory does not grow with the shots. `without`: levels to drop.
        """
        parts = [self.head.encode(self.extract(part)) for part in images.split(_AT_ONCE)]
        return {k: torch.cat([part[k] for part in parts]) for k in parts[0] if k not in without}

    def output(
        self, query: Tensor, support_images: Tensor, support_masks: Tensor, extras: dict[str, Tensor],
        query_mask: Tensor | None = None,
    ) -> HeadOutput:  # fmt: skip
        """Query (B,3,H,W), supports (B,K,3,H,W) with masks (B,K,H,W) -> the head's output.

        `extras` are the head's `prepare`d tensors, `query_mask` (B,H,W) is for losses of its own.
        """
        mine = self.encode(query)
        with self.head.support_gradients():
            theirs = self.encode(support_images.flatten(0, 1), self.head.query_only)
        shape = support_masks.shape[:2]
        theirs = {level: x.unflatten(0, shape) for level, x in theirs.items()}
        return self.head(mine, theirs, support_masks, extras, query_mask)

    def forward(self, query: Tensor, support_images: Tensor, support_masks: Tensor, seed: int = 0) -> Tensor:
        """Segment queries.

        Args:
            query: (B,3,H,W), normalised (`fss.data.transforms.normalise`).
            support_images: (B,K,3,H,W) likewise.
            support_masks: (B,K,H,W), 1 foreground, 0 background, 255 ignored.
            seed: of whatever is random in the head (CWT's first classifier).

        Returns:
            logits (B,2,H,W), background first.

        Raises:
            ValueError: the shapes do not fit each other, or a mask holds other values.
        """
        _check_inputs(query, support_images, support_masks)
        made = [self.head.prepare(masks, seed) for masks in support_masks.cpu()]
        extras = {k: torch.stack([m[k] for m in made]).to(query.device) for k in made[0]}
        logits = self.output(query.float(), support_images.float(), support_masks, extras).logits
        return resize(logits.float(), (query.shape[-2], query.shape[-1]))


_AT_ONCE = 4  # images


def _check_inputs(query: Tensor, images: Tensor, masks: Tensor) -> None:
    got = [tuple(query.shape), tuple(images.shape), tuple(masks.shape)]
    b, _, h, w = got[0] if query.dim() == 4 else (0, 0, 0, 0)
    k = images.shape[1] if images.dim() == 5 else 0
    if min(b, h, w, k) < 1 or got != [(b, 3, h, w), (b, k, 3, h, w), (b, k, h, w)]:
        raise ValueError(
            f"query {got[0]}, support images {got[1]}, support masks {got[2]} do not fit; "
            "wanted (B,3,H,W), (B,K,3,H,W), (B,K,H,W)"
        )
    odd = masks[(masks != 0) & (masks != 1) & (masks != IGNORE)]
    if odd.numel():
        raise ValueError(f"support masks hold {odd.unique()[:5].tolist()}; allowed: 0, 1, {IGNORE} (ignored)")


def frozen_checksum(model: FewShotModel) -> str:
    """sha256 of the frozen network: equal in two results if and only if they stand on the same one."""
    return checksum(nn.ModuleList(model.frozen))


def build_backbone(config: BackboneConfig, weights: bool = True) -> ResNet:
    """The backbone as configured; with `weights=False` untouched, for a checkpoint to fill.

    Raises:
        UserError: weights are missing, do not fit, or have the other stem.
    """
    empty = lambda deep: ResNet(config.layers, deep, config.stride)  # noqa: E731
    if not weights:
        return empty(config.stem != "plain")
    found = find_weights(config.weights, config.layers, config.stem)
    if found == "random":
        return empty(config.stem != "plain")
    state = read_weights(found, config.layers)
    stem = "deep" if has_deep_stem(state) else "plain"
    if config.stem not in ("auto", stem):
        raise UserError(
            f"{found} has the {stem} stem, not backbone.stem={config.stem}; set backbone.stem=auto"
        )
    backbone = empty(stem == "deep")
    load_strict(backbone, state, str(found))
    return backbone


def build_neck(config: NeckConfig, backbone: ResNet) -> Neck:
    """The neck as configured, on this backbone."""
    return make_neck(config.type, backbone.channels, config.model_dump(exclude={"type"}))


def build_model(
    head: str, options: dict[str, Any], backbone: ResNet, neck: Neck | None = None,
    tokens: Tokens | None = None, bf16: bool = False,
) -> FewShotModel:  # fmt: skip
    """A few-shot model: a head by name or import path, with its options, on a (trained) network."""
    channels = network_channels(backbone.layers, neck.channels if neck else None, tokens is not None)
    return FewShotModel(backbone, neck, build_head(head, options, channels), tokens, bf16)


def network_channels(layers: int, neck: int | None, tokens: bool) -> dict[str, int]:
    """Channels of every level that a network has, for heads to read."""
    channels = stage_channels(layers)
    if neck is not None:
        channels["neck"] = neck
    return channels | (VIT_CHANNELS if tokens else {})


def build_base(config: Config, classes: int, weights: bool = True) -> BaseSegmenter:
    """The network of stage 1 for `classes` base classes + background."""
    backbone = build_backbone(config.backbone, weights)
    return BaseSegmenter(backbone, build_neck(config.neck, backbone), classes + 1)
