"""The only wiring: backbone + neck + classifier (base training), backbone + neck + head (episodes)."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fss.backbones import make_backbone
from fss.backbones.base import Backbone
from fss.backbones.fold import fold, state_of
from fss.backbones.frozen import checksum, freeze
from fss.config import BackboneConfig, Config, NeckConfig
from fss.episode import IGNORE, Episode
from fss.heads import Encoded, Features, Head, HeadOutput, Panel, build_head
from fss.heads.base import of_stage4
from fss.necks import Neck, make_neck
from fss.ops import resize, to_rgb
from fss.randomness import seeded


class BaseSegmenter(nn.Module):
    """An ordinary segmentation network for the base classes: what base training makes.

    Args:
        classes: base classes + background, the rows of the linear classifier.
    """

    def __init__(self, backbone: Backbone, neck: Neck, classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.classifier = nn.Conv2d(neck.channels, classes, 1, bias=neck.classifier_bias)
        self.sides = nn.ModuleDict(neck.side_classifiers(classes))

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """RGB (B,3,H,W) -> {"base": (B,classes,h,w)}, and in training each auxiliary classifier's."""
        decoded = self.neck.decode(self.backbone(images, self.neck.levels))
        out = {"base": self.classifier(decoded.map)}
        if self.training:
            out |= {name: self.sides[name](x) for name, x in decoded.sides.items()}
        return out

    def forward(self, images: Tensor) -> Tensor:
        """RGB of 0..255 (B,3,H,W) -> logits (B,classes,h,w) at the neck's own resolution."""
        return self.logits(images)["base"]


class Frozen(nn.Module):
    """The network under a head, as it is computed: images in, maps out. It never learns.

    Args:
        classifier: of base training, for heads that ask for "base".
    """

    def __init__(self, backbone: Backbone, neck: Neck | None, classifier: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.neck, self.classifier = backbone, neck, classifier

    def forward(self, images: Tensor, levels: Sequence[str], masks: Tensor | None, cut: str) -> Features:
        """RGB (B,3,H,W) -> {level: (B,C,h,w)}.

        Args:
            masks: (B,H,W) of supports that are to be cut; None for whole images.
            cut: as of `Head.support_cut`.
        """
        if masks is not None and cut == "image":
            images = _outside_is_mean(images, masks, self.backbone.mean)
        again = [x for x in levels if of_stage4(x)] if masks is not None and cut == "stage4" else []
        stages = {level for level in levels if level.startswith("stage")}
        if again:
            stages = (stages - set(again)) | {"stage3"}
        on_neck = [level for level in levels if not level.startswith("stage")]
        stages |= set(self.neck.levels) if self.neck is not None and on_neck else set()
        maps = self.backbone(images, stages) if stages else {}
        out = {level: maps[level] for level in levels if level in maps}
        if again:
            out |= self._stage4(maps["stage3"], cast(Tensor, masks), again)
        if self.neck is not None:
            out |= self._decoded(self.neck, maps, on_neck)
        return {level: out[level] for level in levels}

    def _stage4(self, stage3: Tensor, masks: Tensor, levels: Sequence[str]) -> Features:
        """Stage 4, or its blocks, of stage 3 times the mask: what stands outside cannot reach the object's
        cells."""
        size = (stage3.shape[-2], stage3.shape[-1])
        inside = resize((masks == 1).float()[:, None], size, self.backbone.corners)  # (B,1,h,w)
        return self.backbone.resume(stage3 * inside.to(stage3.dtype), "stage3", levels)

    def _decoded(self, neck: Neck, maps: Features, levels: Sequence[str]) -> Features:
        """The levels that stand on the neck."""
        out = {}
        if "neck:sum" in levels:
            out["neck:sum"] = neck.before_relu(maps)
        if "neck" in levels:
            out["neck"] = neck(maps)
        if "base" in levels:
            assert self.classifier is not None
            # The neck is the dearest part after the backbone: what stands there already is not made again.
            decoded = out["neck:sum"].relu() if "neck:sum" in levels else neck.decode(maps).map
            out["base"] = self.classifier(decoded)
        return out


def _outside_is_mean(images: Tensor, masks: Tensor, mean: tuple[float, float, float]) -> Tensor:
    """Images (B,3,H,W) whose pixels outside their masks (B,H,W) are the network's mean colour: zero,
    normalised."""
    colour = 255 * torch.tensor(mean, device=images.device).view(3, 1, 1)
    return torch.where((masks == 1)[:, None], images.float(), colour)


class FewShotModel(nn.Module):
    """A frozen network and a head that learns.

    Args:
        neck: of base training, for heads that want its map.
        bf16: compute the frozen part in bfloat16.
        classifier: of base training, for heads that want the base classes' logits.

    Attributes:
        told: what its checkpoint says of itself and of its training; empty where it is of none.
        keeps_network: whether its files hold the frozen network too; without, the head alone, because the
            weights under it are had from elsewhere.
        as_stored: compute the frozen part as it is stored, not as `fold` makes it (`fss export`).
    """

    head: Head
    told: dict[str, Any]
    as_stored = False

    def __init__(
        self, backbone: Backbone, neck: Neck | None, head: Head, bf16: bool = False,
        classifier: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = freeze(backbone)
        self.neck = freeze(neck) if neck else None
        self.classifier = freeze(classifier) if classifier and "base" in head.levels else None
        self.head = head
        head.corners = self.corners
        self.bf16, self.told = bf16, {}
        self.keeps_network = True
        # As computed, and of which parameters. In a tuple, so that it is no part of checkpoints.
        self._folded: tuple[Any, Frozen] | None = None
        self._asked: tuple[Frozen, Callable[[Tensor], Features]] | None = None

    @property
    def frozen(self) -> list[nn.Module]:
        """All that never learns here."""
        return [m for m in (self.backbone, self.neck, self.classifier) if m is not None]

    @property
    def stored(self) -> nn.Module:
        """What goes into its checkpoints, under the same names either way."""
        return self if self.keeps_network else nn.ModuleDict({"head": self.head})

    @property
    def corners(self) -> bool:
        """Whether the corner cells of the network's maps lie on the corner pixels."""
        return bool(cast(Backbone, self.backbone).corners)

    def train(self, mode: bool = True) -> "FewShotModel":
        """Switch the head alone: a frozen network stays in evaluation mode."""
        self.training = mode
        self.head.train(mode)
        return self

    def _network(self) -> Frozen:
        """The frozen network as it is computed; made anew when its parameters were changed."""
        parts = (cast(Backbone, self.backbone), cast(Neck | None, self.neck), self.classifier)
        if self.as_stored:
            return Frozen(*parts)
        now = (self.bf16, state_of(*parts))
        if self._folded is None or self._folded[0] != now:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            with seeded(0):  # made when first needed, in the middle of training too
                folded = [None if part is None else fold(part, dtype) for part in parts]
            self._folded = (now, Frozen(*cast(Any, folded)).eval())
        return self._folded[1]

    @torch.no_grad()
    def extract(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """RGB of 0..255 (B,3,H,W) -> frozen {level: (B,C,h,w)} at the head's levels.

        Args:
            masks: (B,H,W) of supports, of which `Head.support_levels` are computed, cut as its `support_cut`
                says; None for queries.
        """
        levels = self.head.levels if masks is None else self.head.support_levels
        cut = None if self.head.support_cut == "nothing" else masks
        with torch.autocast(images.device.type, enabled=False):
            maps = cast(Features, self._network()(images, levels, cut, self.head.support_cut))
        return maps if cut is None or not self.head.encodes_mask else {**maps, "mask": cut.to(torch.uint8)}

    @property
    def network(self) -> Callable[[Tensor], Features]:
        """`extract` of whole images, as one object for as long as the network stays as it is: heads may keep
        what they asked it."""
        now = self._network()
        if self._asked is None or self._asked[0] is not now:
            self._asked = (now, functools.partial(self.extract))
        return self._asked[1]

    @torch.no_grad()
    def explain_neck(self, images: Tensor) -> list[Panel]:
        """RGB (B,3,H,W) -> maps of the neck's offsets over them, as queries.

        None where the head does not stand on the neck, or the neck has no offsets.
        """
        network = self._network()
        if network.neck is None or "neck" not in self.head.levels:
            return []
        with torch.autocast(images.device.type, enabled=False):
            offsets = network.neck.decode(network.backbone(images, network.neck.levels)).offsets
        return [Panel(title, offset.movedim(1, -1), "query") for title, offset in offsets.items()]

    def encode(self, images: Tensor) -> Features:
        """What the head keeps of queries, whatever their partners: RGB (B,3,H,W) -> {name: (B,...)}."""
        return _joined([self.head.encode(self.extract(part)) for part in images.split(_AT_ONCE)])

    def encode_support(self, images: Tensor, masks: Tensor) -> Features:
        """What the head keeps of supports: RGB (B,3,H,W), masks (B,H,W) -> {name: (B,...)}.

        A few images at a time, so that memory does not grow with the shots.
        """
        parts = zip(images.split(_AT_ONCE), masks.split(_AT_ONCE), strict=True)
        every = [self.head.encode_support(self.extract(i, m)) for i, m in parts]
        return _joined(every, self.head.query_only)

    def encoded(self, e: Episode, seeds: Sequence[int], training: bool = False) -> Encoded:
        """A batch of episodes as the head sees it; with `training`, or where it says that it
        `sees_query_mask`, with the queries' masks."""
        query = self.encode(e.query_image)
        with self.head.support_gradients():
            support = self.encode_support(e.support_images.flatten(0, 1), e.support_masks.flatten(0, 1))
        shape = e.support_masks.shape[:2]
        return Encoded(
            query, {k: x.unflatten(0, shape) for k, x in support.items()}, e.support_masks, seeds,
            self.corners, e.query_mask if training or self.head.sees_query_mask else None, e.photo,
            e.base_class, self.network,
        )  # fmt: skip

    def output(self, e: Episode, seeds: Sequence[int], training: bool = False) -> HeadOutput:
        """The head's output on whole episodes; with `training`, with losses of its own."""
        return cast(HeadOutput, self.head(self.encoded(e, seeds, training)))

    def forward(
        self, query: Tensor, support_images: Tensor, support_masks: Tensor, seed: int = 0,
        query_mask: Tensor | None = None, photo: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Segment queries.

        Args:
            query: (B,3,H,W) RGB of 0..255, bytes or floats.
            support_images: (B,K,3,H,W) likewise.
            support_masks: (B,K,H,W), 1 foreground, 0 background, 255 ignored.
            seed: of whatever is random in the head (CWT's first classifier).
            query_mask: (B,H,W) as the supports', for a head that `sees_query_mask`; no other gets it.
            photo: (B,H,W) bool, where the query holds its photo and not padding; None for everywhere.

        Floats with negative values are taken for 0.1's form of images (normalised by ImageNet's mean and
        deviation) and brought to RGB, with a `FutureWarning`.

        Returns:
            logits (B,2,H,W), background first.

        Raises:
            ValueError: the shapes do not fit each other, or a mask holds other values.
        """
        _check_inputs(query, support_images, support_masks)
        for name, given in (("query_mask", query_mask), ("photo", photo)):
            if given is not None and given.shape != support_masks[:, 0].shape:
                raise ValueError(f"{name} is {tuple(given.shape)}; wanted {tuple(support_masks[:, 0].shape)}")
        if any(x.is_floating_point() and bool((x < 0).any()) for x in (query, support_images)):
            warnings.warn(
                "images hold negative values: taken as normalised, the form of fss 0.1; give RGB of 0..255",
                FutureWarning,
                stacklevel=2,
            )
            query, support_images = to_rgb(query), to_rgb(support_images)
        labels = torch.full((len(query),), -1, device=query.device)
        episode = Episode(query, query_mask, support_images, support_masks, labels, photo)
        logits = self.output(episode, [seed] * len(query)).logits
        return resize(logits.float(), (query.shape[-2], query.shape[-1]), self.corners)


_AT_ONCE = 4  # images


def _joined(parts: list[Features], without: Sequence[str] = ()) -> Features:
    return {k: torch.cat([part[k] for part in parts]) for k in parts[0] if k not in without}


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
    """sha256 of the frozen network: equal in two results if and only if they stand on the same one.

    The base classifier, which only some heads look at, came with it and is no part of the sum.
    """
    return checksum(nn.ModuleList(m for m in model.frozen if m is not model.classifier))


def build_backbone(config: BackboneConfig, weights: bool = True) -> Backbone:
    """The backbone as configured; with `weights=False` untouched, for a checkpoint to fill.

    Raises:
        UserError: an unknown name or option; weights are missing or do not fit.
    """
    return make_backbone(config.type, config.weights if weights else None, config.options)


def build_neck(config: NeckConfig, backbone: Backbone) -> Neck:
    """The neck as configured, on this backbone."""
    return make_neck(config.type, backbone.channels, config.options, backbone.strides)


def build_model(
    head: str, options: Mapping[str, Any], backbone: Backbone, neck: Neck | None = None, bf16: bool = False,
    classifier: nn.Module | None = None, train_shots: int = 1,
) -> FewShotModel:  # fmt: skip
    """A few-shot model: a head by name or import path, with its options, on a (trained) network.

    Args:
        train_shots: K of the head's training.
    """
    channels = network_channels(backbone, neck, classifier)
    made = build_head(head, options, channels, backbone.strides, train_shots)
    return FewShotModel(backbone, neck, made, bf16, classifier)


def network_channels(
    backbone: Backbone, neck: Neck | None, classifier: nn.Module | None = None
) -> dict[str, int]:
    """Channels of every level that a network has, for heads to read."""
    channels = dict(backbone.channels)
    if neck is not None:
        channels |= {"neck": neck.channels}
        if type(neck).before_relu is not Neck.before_relu:
            channels["neck:sum"] = neck.channels
    if isinstance(classifier, nn.Conv2d):
        channels["base"] = classifier.out_channels
    return channels


def build_base(config: Config, classes: int, weights: bool = True) -> BaseSegmenter:
    """The network of base training for `classes` base classes + background."""
    backbone = build_backbone(config.backbone, weights)
    return BaseSegmenter(backbone, build_neck(config.neck, backbone), classes + 1)
