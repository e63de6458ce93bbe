"""Authors' files -> checkpoints of ours. Names that are missing, unknown or misshapen are errors."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fss.backbones.resnet import ResNet
from fss.backbones.weights import has_deep_stem, load_strict, read_state, rename
from fss.config import Config
from fss.data.source import base_names
from fss.engine import checkpoint
from fss.engine.network import about_base
from fss.engine.train import about_few_shot
from fss.errors import UserError
from fss.heads import head_options
from fss.model import BaseSegmenter, build_model
from fss.necks.ppm import PyramidPooling

State = Mapping[str, Tensor]
# First part of a published name -> ours, tried in order; what no row knows keeps its name and is refused.
_BACKBONE = {f"layer{i}": f"backbone.layer{i}" for i in range(5)}
_BASE = {**_BACKBONE, "ppm": "neck", "bottleneck": "neck.bottleneck"}
_CWT = {**_BASE, **{n: f"head.transformer.{n}" for n in ("w_qkvs", "fc", "layer_norm")}}
_CONTEXT = (
    "corr_conv", "alpha_conv", "beta_conv", "inner_cls", "res1", "res2", "cls", "ASPP", "skip1", "skip2",
    "skip3", "decoder", "cls_aux",
)  # fmt: skip
_ASGNET = {**_BACKBONE, "down_conv": "head.down_conv", **{n: f"head.context.{n}" for n in _CONTEXT}}
_BLOCKS_OF_STAGE_3 = {6: 50, 23: 101}


def convert(kind: str, inputs: Sequence[Path], out: Path, config: Config) -> dict[str, Any]:
    """Write a checkpoint of ours from published files, and return what it says of itself.

    Args:
        kind: "backbone" (ImageNet ResNet), "cwt-base" (PSPNet of stage 1), "cwt" (that and the classifier
            weight transformer, two files) or "asgnet" (the whole model).
        config: what the files do not tell: data, fold and size that they were trained on, shots, and head
            options without parameters.

    Raises:
        UserError: a file that cannot be read, names or shapes that do not fit, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists; name another file, or delete it")
    state: dict[str, Tensor] = {}
    for path in inputs:
        part = read_state(path)
        twice = sorted(state.keys() & part.keys())
        if twice:
            raise UserError(
                f"{path} holds {twice[0]} again, of {len(twice)} names that stand in another file"
            )
        state |= part
    source = " and ".join(map(str, inputs))
    model, about, named = KINDS[kind](state, config, source)
    load_strict(model, named, source)
    facts = {
        "converted": [{"file": p.name, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in inputs],
        "steps": None,
    }
    checkpoint.save(
        out, about, model, settings={}, facts=facts, optimizer={}, step=0, spent=0.0, best=float("nan"),
        validated=0,
    )  # fmt: skip
    return about


def _backbone(state: State, config: Config, source: str) -> tuple[nn.Module, dict[str, Any], State]:
    state = rename(state)
    layers, stem = _shape(state, source)
    return _resnet(state, source), {"stage": "backbone", "layers": layers, "stem": stem}, state


def _cwt_base(state: State, config: Config, source: str) -> tuple[nn.Module, dict[str, Any], State]:
    backbone = _resnet(state, source)
    rows = _sizes(state, "classifier.weight", source)[0]
    neck = PyramidPooling(backbone.channels["stage4"], _sizes(state, "bottleneck.0.weight", source)[0])
    names = base_names(config.data)
    about = about_base(_described(config, state, source), _shape(state, source)[1], names)
    return BaseSegmenter(backbone, neck, rows), about, _renamed(state, _BASE)


def _cwt(state: State, config: Config, source: str) -> tuple[nn.Module, dict[str, Any], State]:
    backbone = _resnet(state, source)
    hidden, width = _sizes(state, "w_qkvs.weight", source)
    neck = PyramidPooling(backbone.channels["stage4"], _sizes(state, "bottleneck.0.weight", source)[0])
    if width != neck.channels:
        raise UserError(f"{source}: the transformer is for {width} channels, the network has {neck.channels}")
    options = {**config.head.options, "heads": hidden // width, "transformer": True}
    about = _about("cwt", options, config, state, source)
    kept = {k: v for k, v in _renamed(state, _CWT).items() if k != "classifier.weight"}
    return build_model("cwt", options, backbone, neck), about, kept


def _asgnet(state: State, config: Config, source: str) -> tuple[nn.Module, dict[str, Any], State]:
    context = "aspp" if any(name.startswith("ASPP.") for name in state) else "pyramid"
    width = _sizes(state, "down_conv.0.weight", source)[0]
    options = {**config.head.options, "context": context, "width": width}
    about = {**_about("asgnet", options, config, state, source), "neck": None}
    return build_model("asgnet", options, _resnet(state, source)), about, _renamed(state, _ASGNET)


Kind = Callable[[State, Config, str], tuple[nn.Module, dict[str, Any], State]]
KINDS: dict[str, Kind] = {"backbone": _backbone, "cwt-base": _cwt_base, "cwt": _cwt, "asgnet": _asgnet}


def _about(head: str, options: dict[str, Any], config: Config, state: State, source: str) -> dict[str, Any]:
    kept = head_options(head, options)
    shaped = _described(config, state, source)
    about = about_few_shot(shaped, _shape(state, source)[1], base_names(config.data))
    return {**about, "head": head, "head_options": kept, "shots": config.train.shots}


def _described(config: Config, state: State, source: str) -> Config:
    """The configuration, with the layers and neck that the files have."""
    backbone = config.backbone.model_copy(update={"layers": _shape(state, source)[0]})
    bottleneck = state.get("bottleneck.0.weight")
    wide = {} if bottleneck is None else {"channels": len(bottleneck)}
    return config.model_copy(update={"backbone": backbone, "neck": config.neck.model_copy(update=wide)})


def _shape(state: State, source: str) -> tuple[int, str]:
    """Layers and stem of the ResNet in a state dict of published names."""
    blocks = {name.split(".")[1] for name in state if name.startswith("layer3.")}
    if len(blocks) not in _BLOCKS_OF_STAGE_3 or "layer4.0.conv3.weight" not in state:
        raise UserError(
            f"{source} holds no ResNet-50 or 101: layer3 has {len(blocks)} blocks, wanted 6 or 23, "
            "and layer4. For `cwt` give two files: the base model and the transformer"
        )
    return _BLOCKS_OF_STAGE_3[len(blocks)], "deep" if has_deep_stem(state) else "plain"


def _resnet(state: State, source: str) -> ResNet:
    layers, stem = _shape(state, source)
    return ResNet(layers, stem == "deep")


def _sizes(state: State, name: str, source: str) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"{source}: no {name} among its {len(state)} names; is it of this --kind?")
    return tuple(state[name].shape[:2])


def _renamed(state: State, table: Mapping[str, str]) -> dict[str, Tensor]:
    out = {}
    for name, value in state.items():
        head, dot, tail = name.partition(".")
        out[f"{table.get(head, head)}{dot}{tail}"] = value
    return out
