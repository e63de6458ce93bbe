"""Finding and loading what is to be tested."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.backbones.vit import build_tokens
from fss.config import BackboneConfig, Config, NeckConfig
from fss.data.source import Source
from fss.errors import UserError
from fss.heads import build_head, head_options
from fss.model import FewShotModel, build_backbone, build_model, build_neck, network_channels
from fss.runs import checkpoint
from fss.runs.folders import fold_folder, train_folder
from fss.runs.network import about_few_shot, empty_base, load_network, wanted_stem


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
            f"{path} is a {content['about'].get('stage')} network without a head; train one on it, "
            "or put one with nothing to learn on it (--head prototype)"
        )
    model = _filled(content, path, bf16).eval()
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or no CUDA here
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def load_base_with(path: str | Path, head: str, options: dict[str, Any], bf16: bool = False) -> FewShotModel:
    """A head with nothing to learn on the network of a checkpoint of stage 1, ready to segment.

    Args:
        head: by name or import path; options: its keyword arguments.

    Raises:
        UserError: no such file, not a checkpoint of stage 1, or a head that has to learn.
    """
    path = Path(path)
    content = checkpoint.read(path)
    about = content["about"]
    if about.get("stage") != "base":
        raise UserError(f"{path} is no checkpoint of stage 1; a checkpoint of stage 2 has its head already")
    network = Config(
        neck=NeckConfig(**about["neck"]), backbone=BackboneConfig(stride=about.get("stride", 8))
    )  # fmt: skip
    base = empty_base(network, content)
    checkpoint.fill(base, content, path)
    model = build_model(head, options, base.backbone, base.neck, bf16=bf16).eval()
    if model.head.learns:
        raise UserError(f"head {head!r} has to learn before it is of use; name the checkpoint of its stage 2")
    model.told = {**about, **content["facts"], "head": head, "head_options": head_options(head, options)}
    return model


def _filled(content: dict[str, Any], path: Path, half: bool) -> FewShotModel:
    """The model that a checkpoint's own account describes, with its parameters."""
    about = content["about"]
    try:
        shape = BackboneConfig(layers=about["layers"], stem=about["stem"], stride=about.get("stride", 8))
        backbone = build_backbone(shape, weights=False)
        neck = build_neck(NeckConfig(**about["neck"]), backbone) if about["neck"] else None
        head, options = str(about["head"]), dict(about["head_options"])
        tokens = build_tokens("random", about["vit_size"]) if about.get("vit_size") else None
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{path} does not say what it holds ({error!r}); train or convert it anew") from None
    model = build_model(head, options, backbone, neck, tokens, half)
    checkpoint.fill(model, content, path)
    model.told = {**about, **content["facts"], "validation_miou": checkpoint.best_score(content)}
    return model


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
