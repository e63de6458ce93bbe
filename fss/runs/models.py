"""Networks and models from their files: base networks, weights as they come, trained heads."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fss.backbones.base import Backbone, check_size
from fss.backbones.frozen import checksum
from fss.config import BackboneConfig, Config, NeckConfig, Part
from fss.data.source import Source
from fss.errors import UserError
from fss.heads import Head, build_head
from fss.model import (
    BaseSegmenter,
    FewShotModel,
    build_backbone,
    build_model,
    build_neck,
    network_channels,
)
from fss.necks import Neck
from fss.randomness import seeded
from fss.runs import checkpoint
from fss.runs.folders import base_folder, fold_folder, train_folder
from fss.runs.identity import Identity, identify, modern, require, whole


@dataclass(frozen=True)
class Network:
    """The parts of a frozen network, and its account."""

    backbone: Backbone
    neck: Neck | None
    classifier: nn.Module | None
    told: dict[str, Any]

    def model(self, head: Part, half: bool, train_shots: int = 1) -> FewShotModel:
        """A head on this network, to be trained with `train_shots` supports."""
        parts = self.backbone, self.neck, half, self.classifier, train_shots
        model = build_model(head.type, head.options, *parts)
        # Random weights stand in no file, so the checkpoint keeps them.
        model.keeps_network = self.neck is not None or self.told["weights"] == "random"
        return model


def load_network(config: Config, source: Source) -> Network:
    """The network that heads stand on, as configured.

    Raises:
        UserError: base checkpoint or weights are missing or unfit, or the network cannot take `data.size`.
    """
    if config.with_neck:
        base, told = load_base(config, source)
        return Network(base.backbone, base.neck, base.classifier, told)
    with seeded(config.seed):  # random weights are the same each time and in each process
        backbone = build_backbone(config.backbone)
    check_size(backbone, config.data.size)
    told = {**weights_told(config.backbone, backbone), "backbone_sha256": checksum(backbone)}
    return Network(backbone, None, None, told)


def weights_told(config: BackboneConfig, backbone: Backbone) -> dict[str, Any]:
    """A backbone's account: its part with all that its weights decided, and where they came from."""
    part = {"type": config.type, **config.options, **backbone.settled()}
    return {"backbone": part, "weights": config.weights}


def load_base(config: Config, source: Source) -> tuple[BaseSegmenter, dict[str, Any]]:
    """The base network from its best checkpoint, or a given one, with its `about` and `facts` in one.

    Raises:
        UserError: it is missing, or of another data set, fold, backbone or neck.
    """
    given = config.base_file
    if given and not given.is_file():
        raise UserError(f"network={given}: no such file; allowed: base, weights, or a base checkpoint")
    path = given or base_folder(config) / "best.pt"
    if not path.is_file():
        raise UserError(f"no base checkpoint {path}; run `fss pretrain` with the same settings first")
    content = checkpoint.read(path)
    require(content["about"], Identity.of_base(config, source.base_names).account(), str(path))
    model = empty_base(content, path, config.neck.options.get("stride"))
    checkpoint.fill(model, content, path)
    told = {**modern(content["about"]), **content["facts"], "base_miou": checkpoint.best_score(content)}
    return model, told


@seeded(0)  # what fills an empty network's parameters at first is no matter
def empty_base(content: dict[str, Any], path: Path, stride: int | None = None) -> BaseSegmenter:
    """An untrained network of the shape that a checkpoint's content has.

    Published classifiers have rows of their own number: those that are there are taken.

    Args:
        stride: of the map that heads get, which a base network does not settle itself; None for its default.
    """
    who, rows = identify(content["about"], str(path)), content["model"].get("classifier.weight")
    if who.stage != "base" or who.neck is None:
        raise UserError(f"{path} is no base checkpoint: it is a {who.stage} network")
    classes = len(who.base_classes) + 1 if rows is None else len(rows)
    backbone = _empty_backbone(who)
    options = who.neck.options | ({} if stride is None else {"stride": stride})
    neck = build_neck(NeckConfig(type=who.neck.type, **options), backbone)
    return BaseSegmenter(backbone, neck, classes)


def _empty_backbone(who: Identity) -> Backbone:
    return build_backbone(BackboneConfig(type=who.backbone.type, **who.backbone.options), weights=False)


@dataclass(frozen=True)
class Trained:
    """A model to test.

    Attributes:
        told: what its checkpoint says of itself and of its training.
        shots: it was trained with; None if it had nothing to learn.
        home: the folder that its tests' folders go into.
        kind: "best", "last", "file" or "base", for folder names and the protocol.
    """

    model: FewShotModel
    told: dict[str, Any]
    shots: int | None
    home: Path
    kind: str


def load_trained(config: Config, source: Source, half: bool, path: Path | None = None) -> Trained:
    """A given checkpoint, else the one that training left, else, with nothing to learn, the network alone.

    Raises:
        UserError: there is none, or it is of another head, data set, fold, backbone or neck.
    """
    if path is None and config.data.fold == -1:
        raise UserError("data.fold=-1 tests on every class; name what to test with --checkpoint FILE")
    if path is None and not learns(config):
        net = load_network(config, source)
        home = train_folder(config, config.test.shots)
        return Trained(net.model(config.head, half), net.told, None, home, "base")
    found = path or find_trained(config)
    content = checkpoint.read(found)
    wanted = Identity.of_few_shot(config, source.base_names).account()
    if config.data.fold == -1:  # every class is novel, so the network may be trained on any set
        wanted = {k: v for k, v in wanted.items() if k not in ("data", "fold", "base_classes")}
    require(content["about"], wanted, str(found))
    model = _filled(content, found, half)
    ours = found.resolve().is_relative_to(config.output.resolve()) and found.stem in ("best", "last")
    home = found.parent if ours else fold_folder(config) / f"given_{found.stem}_{_digest(found)}"
    return Trained(model, model.told, content["about"].get("shots"), home, found.stem if ours else "file")


def load_model(path: str | Path, device: str = "cpu", bf16: bool = False) -> FewShotModel:
    """The model of a checkpoint with a head, trained here or converted, ready to segment.

    Args:
        bf16: compute the frozen part in bfloat16.

    Raises:
        UserError: no such file, not a checkpoint with a head, or one whose head cannot be imported.
    """
    path = Path(path)
    content = checkpoint.read(path)
    if content["about"].get("stage") != "few-shot":
        raise UserError(
            f"{path} is a {content['about'].get('stage')} network without a head; train one on it, "
            "or put one with nothing to learn on it (--head prototype)"
        )
    model = _filled(content, path, bf16).eval()
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or no CUDA here
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


@seeded(0)
def load_base_with(path: str | Path, head: Part, bf16: bool = False) -> FewShotModel:
    """A head with nothing to learn on the network of a base checkpoint, ready to segment.

    Raises:
        UserError: no such file, not a base checkpoint, or a head that has to learn.
    """
    path = Path(path)
    content = checkpoint.read(path)
    about = modern(content["about"])
    if about.get("stage") != "base":
        raise UserError(f"{path} is no base checkpoint; a checkpoint of a head has its head already")
    base = empty_base(content, path)
    checkpoint.fill(base, content, path)
    model = build_model(head.type, head.options, base.backbone, base.neck, bf16, base.classifier).eval()
    if model.head.learns:
        raise UserError(
            f"head {head.type!r} has to learn before it is of use; name the checkpoint of its training"
        )
    model.told = {**about, **content["facts"], "head": whole("head", head).model_dump(mode="json")}
    return model


@seeded(0)
def _filled(content: dict[str, Any], path: Path, half: bool) -> FewShotModel:
    """The model that a checkpoint's own account describes, with its parameters."""
    who, state = identify(content["about"], str(path)), content["model"]
    if who.head is None:
        raise UserError(f"{path} does not say what it holds (it names no head); train or convert it anew")
    whole = any(name.startswith("backbone.") for name in state)
    backbone = _empty_backbone(who) if whole else _backbone_from_elsewhere(content, who, path)
    neck = build_neck(NeckConfig(type=who.neck.type, **who.neck.options), backbone) if who.neck else None
    classifier = _empty_classifier(neck, state)
    shots = int(content["about"].get("shots") or 1)
    model = build_model(who.head.type, who.head.options, backbone, neck, half, classifier, shots)
    model.keeps_network = whole
    checkpoint.fill(model, content, path)
    model.told = {
        **modern(content["about"]), **content["facts"], "validation_miou": checkpoint.best_score(content),
    }  # fmt: skip
    return model


def _empty_classifier(neck: Neck | None, state: dict[str, Any]) -> nn.Module | None:
    rows = state.get("classifier.weight")
    if neck is None or rows is None:
        return None
    return nn.Conv2d(neck.channels, len(rows), 1, bias="classifier.bias" in state)


def _backbone_from_elsewhere(content: dict[str, Any], who: Identity, path: Path) -> Backbone:
    """The backbone under a checkpoint that holds its head alone.

    Raises:
        UserError: its weights are not to be had, or are others by now.
    """
    base = content["facts"].get("base", {})
    config = BackboneConfig(
        type=who.backbone.type, weights=base.get("weights", "auto"), **who.backbone.options
    )
    try:
        backbone = build_backbone(config)
    except UserError as error:
        raise UserError(
            f"{path} holds its head alone, and the weights under it are missing: {error}"
        ) from None
    if checksum(backbone) != base.get("backbone_sha256"):
        raise UserError(
            f"{path} was trained on other weights than backbone.weights={config.weights} has now "
            f"(sha256 {str(base.get('backbone_sha256'))[:12]}); put those back"
        )
    return backbone


def find_trained(config: Config) -> Path:
    """The checkpoint of this head for `test.shots`, else for the nearest number of shots.

    Raises:
        UserError: there is none; the message says how to train it.
    """
    kind = "best" if config.test.checkpoint == "both" else config.test.checkpoint
    name, shots = f"{kind}.pt", config.test.shots
    own = train_folder(config, shots)
    family = re.compile(re.escape(own.name).replace(f"_{shots}shot", r"_(\d+)shot"))
    there = sorted(own.parent.glob("*")) if own.parent.is_dir() else []
    matches = [(m, p) for p in there if (m := family.fullmatch(p.name)) and (p / name).is_file()]
    if not matches:
        data, head = config.data, config.head.type
        asked = f"head.type={head}" if ":" in head else f"--head {head}"
        trained = (
            f"{data.trained_name} --fold {data.fold} --layers {config.backbone.type} --shots {shots} {asked}"
        )
        raise UserError(
            f"no checkpoint {own / name}. Train first: fss train --data {trained}, "
            "or name one with --checkpoint FILE"
        )
    _, nearest = min(matches, key=lambda pair: abs(int(pair[0][1]) - shots))
    return nearest / name


def learns(config: Config) -> bool:
    """Whether the head has anything to learn; it is made on an empty network to find out."""
    return head_on_empty_network(config).learns


@seeded(0)
def head_on_empty_network(config: Config) -> Head:
    """The configured head on a network of the configured shape, without weights: for what its class tells.

    Raises:
        UserError: a backbone, neck or head that refuses its settings, or a size that the network cannot take.
    """
    with torch.device("meta"):
        backbone = build_backbone(config.backbone, weights=False)
        check_size(backbone, config.data.size)
        if config.pretrain.crop is not None and config.network == "base":
            check_size(backbone, config.pretrain.crop, "pretrain.crop")
        neck = build_neck(config.neck, backbone) if config.with_neck else None
        classifier = nn.Conv2d(neck.channels, 2, 1) if neck else None
        channels = network_channels(backbone, neck, classifier)
        options, shots = config.head.options, config.train.shots
        return build_head(config.head.type, options, channels, backbone.strides, shots)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
