"""The network behind a prediction: a checkpoint's, or installed weights under a head that learns nothing."""

from collections.abc import Sequence
from pathlib import Path

from fss.backbones.base import nearest_size
from fss.data.canvas import Canvas
from fss.errors import UserError
from fss.model import FewShotModel, build_backbone, build_model
from fss.randomness import seeded
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.models import load_base_with, load_model

SIZE = 321  # longest side at which photos are seen where nobody says; docs/votes.md measures others
INSTALLED = "backbone.type=efficientnet_lite0"  # its weights come with the package
_TRAINING_FREE = ("votes", "prototype", "insid3")


def load(path: Path | None, head: str, settings: Sequence[str], half: bool) -> tuple[FewShotModel, Canvas]:
    """A model, and the canvas to look at photos on: the one it was trained on, or the nearest to `SIZE`.

    Args:
        path: of a checkpoint, of any head, or of a base network, on which `head` is put. None: `head` on
            the backbone of `settings`, which is `INSTALLED` unless they name another.
        settings: `key=value`.

    Raises:
        UserError: no such file or weights, a head that would have to learn first, unknown settings.
    """
    if path is not None:
        model, data = _of_checkpoint(path, head, settings, half), load_config("folder", head, settings).data
        base = model.told.get("stage") == "base"  # a network that serves heads of both ways
        own = data.resize if base else model.told.get("resize", "pad")
        return model, Canvas(model.told.get("size") or data.size, own)
    config = load_config("folder", head, [INSTALLED, *settings])
    try:
        with seeded(config.seed):  # of weights that are random on purpose
            backbone = build_backbone(config.backbone)
    except UserError as error:
        raise UserError(
            f"{error}\nOr leave backbone.type out, for weights that are installed, or name a trained or "
            "converted model with --checkpoint FILE."
        ) from None
    with seeded(config.seed):
        model = build_model(config.head.type, config.head.options, backbone, None, half)
    if model.head.learns:
        raise UserError(
            f"head {head!r} learns, so it needs a checkpoint: train it and name its best.pt, or use "
            f"{' or '.join(_TRAINING_FREE)}, which have nothing to learn"
        )
    model.told = {"weights": "random"} if config.backbone.weights == "random" else {}
    return model, Canvas(nearest_size(backbone, SIZE), config.data.resize)


def doubts(model: FewShotModel) -> list[str]:
    """Reasons to expect little of a model on photos; they are known before anything is computed."""
    found = []
    if model.told.get("data") == "shapes":
        found.append("the checkpoint was trained on drawn shapes, and knows nothing of photos")
    if model.told.get("weights") == "random":
        found.append("the network started from random weights, not from ImageNet's")
    return found


def _of_checkpoint(path: Path, head: str, settings: Sequence[str], half: bool) -> FewShotModel:
    if checkpoint.read(path)["about"].get("stage") == "base":
        on_neck = ["head.level=neck"] if head in _TRAINING_FREE else []
        return load_base_with(path, load_config("folder", head, [*on_neck, *settings]).head, half)
    said = [text for text in settings if text.startswith(("head.", "neck.", "backbone.", "data.resize"))]
    if said:
        raise UserError(f"{said[0]}: {path} settles that itself; leave it out")
    return load_model(path, bf16=half)
