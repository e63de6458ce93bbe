"""Finding and loading what is to be tested."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.backbones.resnet import ResNet
from fss.backbones.vit import build_tokens
from fss.config import BackboneConfig, Config, NeckConfig
from fss.data.source import Source
from fss.engine import checkpoint
from fss.engine.network import load_network, wanted_stem
from fss.engine.run import fold_folder, train_folder
from fss.engine.train import about_few_shot
from fss.errors import UserError
from fss.heads import build_head
from fss.model import (
    BaseSegmenter,
    FewShotModel,
    build_backbone,
    build_model,
    build_neck,
    network_channels,
)
from fss.necks import Neck


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
    """A given checkpoint, else the one that training left, else, with nothing to learn, the base alone.

    Raises:
        UserError: there is none, or it is of another head, data set, fold, backbone or neck.
    """
    if path is None and config.data.fold == -1:
        raise UserError("data.fold=-1 tests on every class; name what to test with --checkpoint FILE")
    if path is None and not learns(config):
        net = load_network(config, source)
        head, home = config.head, train_folder(config, config.test.shots)
        model = build_model(head.type, head.options, net.backbone, net.neck, net.tokens, half)
        return Trained(model, net.told, None, home, "base")
    found = path or find_trained(config)
    content = checkpoint.read(found)
    wanted = about_few_shot(config, wanted_stem(config, content), source.base_names)
    if config.data.fold == -1:  # every class is novel: a network trained on anything else will do
        wanted = {k: v for k, v in wanted.items() if k not in ("data", "fold", "base_classes")}
    checkpoint.require(content, wanted, found)
    model = _filled(content, found, half)
    ours = found.resolve().is_relative_to(config.output.resolve()) and found.stem in ("best", "last")
    home = found.parent if ours else fold_folder(config) / f"given_{found.stem}_{_digest(found)}"
    return Trained(model, model.told, content["about"].get("shots"), home, found.stem if ours else "file")


def load_model(path: str | Path, device: str = "cpu", bf16: bool = False) -> FewShotModel:
    """The model of a checkpoint of stage 2, trained here or converted, ready to segment.

    Args:
        bf16: compute the frozen part in bfloat16.

    Raises:
        UserError: no such file, not a checkpoint of stage 2, or one whose head cannot be imported.
    """
    path = Path(path)
    content = checkpoint.read(path)
    if content["about"].get("stage") != "few-shot":
        raise UserError(
            f"{path} is a {content['about'].get('stage')} network without a head; train one on it"
        )
    model = _filled(content, path, bf16).eval()
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or no CUDA here
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def load_base_parts(path: Path) -> tuple[ResNet, Neck]:
    """Backbone and neck of a checkpoint of stage 1, for a head to be put on.

    Raises:
        UserError: no such file, or not a checkpoint of stage 1.
    """
    content = checkpoint.read(path)
    about, rows = content["about"], content["model"].get("classifier.weight")
    if about.get("stage") != "base" or rows is None:
        raise UserError(f"{path} is a {about.get('stage')} checkpoint; wanted one of stage 1 or 2")
    with _telling(path):
        backbone, neck = _network_of(about)
    assert neck is not None  # stage 1 always has one
    network = BaseSegmenter(backbone, neck, len(rows))
    checkpoint.fill(network, content, path)
    return network.backbone, network.neck


def _filled(content: dict[str, Any], path: Path, half: bool) -> FewShotModel:
    """The model that a checkpoint's own account describes, with its parameters."""
    about = content["about"]
    with _telling(path):
        backbone, neck = _network_of(about)
        head, options = str(about["head"]), dict(about["head_options"])
        tokens = build_tokens("random", about["vit_size"]) if about.get("vit_size") else None
    model = build_model(head, options, backbone, neck, tokens, half)
    checkpoint.fill(model, content, path)
    model.told = {**about, **content["facts"], "validation_miou": checkpoint.best_score(content)}
    return model


def _network_of(about: dict[str, Any]) -> tuple[ResNet, Neck | None]:
    """An empty backbone and neck of the shape that an account describes."""
    shape = BackboneConfig(layers=about["layers"], stem=about["stem"], stride=about.get("stride", 8))
    backbone = build_backbone(shape, weights=False)
    return backbone, build_neck(NeckConfig(**about["neck"]), backbone) if about["neck"] else None


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} does not say what it holds ({error!r}); train or convert it anew") from None


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
        data, layers, head = config.data, config.backbone.layers, config.head.type
        asked = f"head.type={head}" if ":" in head else f"--head {head}"
        raise UserError(
            f"no checkpoint {own / name}. Train first: "
            f"sh scripts/train.sh {data.trained_name} {data.fold} [0] {layers} {shots} {asked}, "
            "or name one with --checkpoint FILE"
        )
    _, nearest = min(matches, key=lambda pair: abs(int(pair[0][1]) - shots))
    return nearest / name


def learns(config: Config) -> bool:
    """Whether the head has anything to learn."""
    neck = config.neck.channels if config.backbone.stage1 else None
    channels = network_channels(config.backbone.layers, neck, config.backbone.vit != "none")
    return build_head(config.head.type, config.head.options, channels).learns


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
