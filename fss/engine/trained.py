"""Finding and loading what is to be tested."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.backbones.resnet import stage_channels
from fss.config import Config
from fss.data.source import Source
from fss.engine import checkpoint
from fss.engine.pretrain import empty_base, load_base, wanted_stem
from fss.engine.run import fold_folder, train_folder
from fss.engine.train import about_few_shot
from fss.errors import UserError
from fss.heads import build_head
from fss.model import FewShotModel, build_model


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
    if path is None and not _learns(config):
        base, told = load_base(config, source)
        home = train_folder(config, config.test.shots)
        return Trained(build_model(config, base, half), told, None, home, "base")
    found = path or find_trained(config)
    content = checkpoint.read(found)
    wanted = about_few_shot(config, source, wanted_stem(config, content))
    if config.data.fold == -1:  # every class is novel: a network trained on anything else will do
        wanted = {k: v for k, v in wanted.items() if k not in ("data", "fold", "base_classes")}
    checkpoint.require(content, wanted, found)
    model = build_model(config, empty_base(config, content["about"]), half)
    checkpoint.fill(model, content, found)
    told = {**content["about"], **content["facts"], "validation_miou": content["best"]}
    ours = found.resolve().is_relative_to(config.output.resolve())
    home = found.parent if ours else fold_folder(config) / f"given_{found.stem}_{_digest(found)}"
    kind = found.stem if ours and found.stem in ("best", "last") else "file"
    return Trained(model, told, content["about"]["shots"], home, kind)


def find_trained(config: Config) -> Path:
    """The checkpoint of this head for `test.shots`, else for the nearest number of shots.

    Raises:
        UserError: there is none; the message says how to train it.
    """
    name, shots = f"{config.test.checkpoint}.pt", config.test.shots
    own = train_folder(config, shots)
    family = re.compile(re.escape(own.name).replace(f"_{shots}shot", r"_(\d+)shot"))
    there = sorted(own.parent.glob("*")) if own.parent.is_dir() else []
    matches = [(m, p) for p in there if (m := family.fullmatch(p.name)) and (p / name).is_file()]
    if not matches:
        data, layers = config.data, config.backbone.layers
        raise UserError(
            f"no checkpoint {own / name}. Train first: "
            f"sh scripts/train.sh {data.name} {data.fold} [0] {layers} {shots} --head {config.head.type}, "
            "or name one with --checkpoint FILE"
        )
    _, nearest = min(matches, key=lambda pair: abs(int(pair[0][1]) - shots))
    return nearest / name


def _learns(config: Config) -> bool:
    channels = {**stage_channels(config.backbone.layers), "neck": config.neck.channels}
    return build_head(config.head.type, config.head.options, channels).learns


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
