"""The only wiring: backbone + neck + classifier (stage 1), backbone + neck + head (episodes)."""

import torch
from torch import Tensor, nn

from fss.backbones.frozen import checksum, freeze
from fss.backbones.resnet import ResNet
from fss.backbones.weights import find_weights, has_deep_stem, load_strict, read_weights
from fss.config import BackboneConfig, Config, NeckConfig
from fss.errors import UserError
from fss.heads import Features, Head, HeadOutput, build_head
from fss.necks.ppm import PyramidPooling


class BaseSegmenter(nn.Module):
    """Stage 1: an ordinary segmentation network for the base classes.

    Args:
        classes: base classes + background, the rows of the bias-free linear classifier.
    """

    def __init__(self, backbone: ResNet, neck: PyramidPooling, classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.classifier = nn.Conv2d(neck.channels, classes, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) -> logits (B,classes,h,w) at stride 8."""
        return self.classifier(self.neck(self.backbone(images, self.neck.levels)))


class FewShotModel(nn.Module):
    """A frozen backbone and neck, and a head that learns.

    Args:
        bf16: compute the frozen part in bfloat16.
    """

    head: Head

    def __init__(self, backbone: ResNet, neck: PyramidPooling, head: Head, bf16: bool = False) -> None:
        super().__init__()
        self.backbone = freeze(backbone)
        self.neck = freeze(neck)
        self.head = head
        self.bf16 = bf16

    def train(self, mode: bool = True) -> "FewShotModel":
        """Switch the head alone: a frozen network stays in evaluation mode."""
        self.training = mode
        self.head.train(mode)
        return self

    @torch.no_grad()
    def extract(self, images: Tensor) -> Features:
        """Images (B,3,H,W) -> frozen features {level: (B,C,h,w)} at the head's levels."""
        wanted = set(self.head.levels) - {"neck"}
        if "neck" in self.head.levels:
            wanted.update(PyramidPooling.levels)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.backbone(images, wanted)
            if "neck" in self.head.levels:
                features["neck"] = self.neck(features)
        return {level: features[level] for level in self.head.levels}

    def encode(self, images: Tensor) -> Features:
        """What the head keeps of an image, whatever its partners: images (B,3,H,W) -> {level: (B,...)}."""
        return self.head.encode(self.extract(images))

    def forward(
        self,
        query: Tensor,
        support_images: Tensor,
        support_masks: Tensor,
        extras: dict[str, Tensor],
        query_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Query (B,3,H,W), supports (B,K,3,H,W) with masks (B,K,H,W) -> the head's output."""
        b, k = support_images.shape[:2]
        every = self.encode(torch.cat([query, support_images.flatten(0, 1)]))
        mine = {level: x[:b] for level, x in every.items()}
        theirs = {level: x[b:].unflatten(0, (b, k)) for level, x in every.items()}
        return self.head(mine, theirs, support_masks, extras, query_mask)


def frozen_checksum(model: FewShotModel) -> str:
    """sha256 of the frozen network: equal in two results if and only if they stand on the same one."""
    return checksum(nn.ModuleList([model.backbone, model.neck]))


def build_backbone(config: BackboneConfig, weights: bool = True) -> ResNet:
    """The backbone as configured; with `weights=False` untouched, for a checkpoint to fill.

    Raises:
        UserError: weights are missing, do not fit, or have the other stem.
    """
    if not weights:
        return ResNet(config.layers, config.stem != "plain")
    found = find_weights(config.weights, config.layers, config.stem)
    if found == "random":
        return ResNet(config.layers, config.stem != "plain")
    state = read_weights(found, config.layers)
    stem = "deep" if has_deep_stem(state) else "plain"
    if config.stem not in ("auto", stem):
        raise UserError(
            f"{found} has the {stem} stem, not backbone.stem={config.stem}; set backbone.stem=auto"
        )
    backbone = ResNet(config.layers, stem == "deep")
    load_strict(backbone, state, str(found))
    return backbone


def build_neck(config: NeckConfig, backbone: ResNet) -> PyramidPooling:
    """The neck as configured, on this backbone."""
    return PyramidPooling(backbone.channels["stage4"], config.channels, dropout=config.dropout)


def build_model(config: Config, base: BaseSegmenter, bf16: bool = False) -> FewShotModel:
    """A few-shot model on the (trained) network of stage 1; its classifier is left behind."""
    channels = {**base.backbone.channels, "neck": base.neck.channels}
    head = build_head(config.head.type, config.head.options, channels)
    return FewShotModel(base.backbone, base.neck, head, bf16)


def build_base(config: Config, classes: int, weights: bool = True) -> BaseSegmenter:
    """The network of stage 1 for `classes` base classes + background."""
    backbone = build_backbone(config.backbone, weights)
    return BaseSegmenter(backbone, build_neck(config.neck, backbone), classes + 1)
