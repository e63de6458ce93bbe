"""The frozen network under the heads, from its files: stage 1's checkpoint, or backbone weights alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fss.backbones.frozen import checksum
from fss.backbones.resnet import ResNet
from fss.backbones.vit import Tokens, build_tokens
from fss.config import BackboneConfig, Config
from fss.data.source import Source
from fss.errors import UserError
from fss.heads import head_options
from fss.model import BaseSegmenter, build_backbone, build_base
from fss.necks import Neck
from fss.runs import checkpoint
from fss.runs.folders import base_folder


@dataclass(frozen=True)
class Network:
    """The parts of a frozen network, and what there is to tell of it."""

    backbone: ResNet
    neck: Neck | None
    tokens: Tokens | None
    told: dict[str, Any]


def load_network(config: Config, source: Source) -> Network:
    """The network that heads stand on, as configured.

    Raises:
        UserError: the base checkpoint or weights are missing, or unfit.
    """
    torch.manual_seed(config.seed)  # random weights are a setting too: the same each time and in each process
    tokens = load_tokens(config.backbone)
    if config.backbone.stage1:
        base, told = load_base(config, source)
        return Network(base.backbone, base.neck, tokens, told)
    backbone = build_backbone(config.backbone)
    told = {
        "stem": "deep" if backbone.deep_stem else "plain",
        "weights": config.backbone.weights,
        "backbone_sha256": checksum(backbone),
    }
    return Network(backbone, None, tokens, told)


def load_tokens(config: BackboneConfig) -> Tokens | None:
    """The vision transformer, where one is asked for."""
    return None if config.vit == "none" else build_tokens(config.vit, config.vit_size)


def load_base(config: Config, source: Source) -> tuple[BaseSegmenter, dict[str, Any]]:
    """The network of stage 1 from its best checkpoint, or a given one, with its `about` and `facts` in one.

    Raises:
        UserError: it is missing, or of another data set, fold, backbone or neck.
    """
    given = config.backbone.base
    if given and not given.is_file():
        raise UserError(f"backbone.base={given}: no such file")
    path = given or base_folder(config) / "best.pt"
    if not path.is_file():
        raise UserError(f"no base checkpoint {path}; run `fss pretrain` with the same settings first")
    content = checkpoint.read(path)
    checkpoint.require(content, about_base(config, wanted_stem(config, content), source.base_names), path)
    model = empty_base(config, content)
    checkpoint.fill(model, content, path)
    return model, {**content["about"], **content["facts"], "base_miou": checkpoint.best_score(content)}


def about_base(config: Config, stem: str, base_names: Sequence[str]) -> dict[str, Any]:
    """What a base checkpoint must say of itself to be the one that is wanted."""
    novel = config.data.novel_in_train
    return {
        "stage": "base",
        **({} if novel == "background" else {"novel_in_train": novel}),
        "train_masks": config.data.masks_name,  # None, as in checkpoints of before: the true ones
        "data": config.data.trained_name,
        "fold": config.data.fold,
        "base_classes": list(base_names),
        "size": config.data.size,
        "layers": config.backbone.layers,
        "stem": stem,
        **({} if config.backbone.stride == 8 else {"stride": config.backbone.stride}),
        "neck": config.neck.account(),
    }


def wanted_stem(config: Config, content: dict[str, Any]) -> str:
    """The stem that is asked for; with `auto`, the one a checkpoint has."""
    own = config.backbone.stem
    return str(content["about"].get("stem")) if own == "auto" else own


def empty_base(config: Config, content: dict[str, Any]) -> BaseSegmenter:
    """An untrained network of the shape that a checkpoint's content has.

    Published classifiers have rows of their own number: what is there is taken.
    """
    about, rows = content["about"], content["model"].get("classifier.weight")
    classes = len(about["base_classes"]) if rows is None else len(rows) - 1
    shape = config.backbone.model_copy(update={"layers": about["layers"], "stem": about["stem"]})
    network = config.model_copy(update={"backbone": shape})
    return build_base(network, classes, weights=False)


def about_few_shot(config: Config, stem: str, base_names: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint of stage 2 must say of itself to be the one that is wanted."""
    neck = config.neck.account(with_stride=True) if config.backbone.stage1 else None
    about = {**about_base(config, stem, base_names), "stage": "few-shot", "neck": neck}
    if config.backbone.vit != "none":
        about["vit_size"] = config.backbone.vit_size
    head = {"head": config.head.type, "head_options": head_options(config.head.type, config.head.options)}
    return about | head
