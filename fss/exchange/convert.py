"""Authors' files -> checkpoints of ours. Names that are missing, unknown or misshapen are errors."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fss.backbones import make_backbone
from fss.backbones.resnet import ResNet
from fss.backbones.weights import has_deep_stem, load_strict, read_state, rename
from fss.config import BackboneConfig, Config, HeadConfig, NeckConfig
from fss.data.classes import fold_classes
from fss.errors import UserError
from fss.heads.aggregation import positions
from fss.model import BaseSegmenter, build_model
from fss.necks import Neck
from fss.necks.ppm import PyramidPooling
from fss.parts import nearest
from fss.randomness import seeded
from fss.recipes import load_config
from fss.runs import checkpoint
from fss.runs.identity import Identity

State = Mapping[str, Tensor]
Converted = tuple[nn.Module, dict[str, Any], State]  # an empty model, its account, parameters in its names
# First part of a published name -> ours; a name without a row stays as it is and is refused.
_BACKBONE = {f"layer{i}": f"backbone.layer{i}" for i in range(5)}
_BASE = {**_BACKBONE, "ppm": "neck", "bottleneck": "neck.bottleneck"}
_CWT = {**_BASE, **{n: f"head.transformer.{n}" for n in ("w_qkvs", "fc", "layer_norm")}}
_CONTEXT = (
    "corr_conv", "alpha_conv", "beta_conv", "inner_cls", "res1", "res2", "cls", "ASPP", "skip1", "skip2",
    "skip3", "decoder", "cls_aux",
)  # fmt: skip
_ASGNET = {**_BACKBONE, "down_conv": "head.down_conv", **{n: f"head.context.{n}" for n in _CONTEXT}}
_PFENET = {
    **_BACKBONE, **{n: f"head.{n}" for n in ("down_query", "down_supp")},
    **{n: f"head.context.{n}" for n in _CONTEXT}, "init_merge": "head.context.corr_conv",
}  # fmt: skip
_HSNET = {**_BACKBONE, "hpn_learner": "head"}
_DCAMA = {**_BACKBONE, "model": "head"}
_META = ("init_merge", "ASPP_meta", "res1_meta", "res2_meta", "cls_meta")
_BAM = {
    **_BASE, **{n: f"head.{n}" for n in ("down_query", "down_supp")}, **{n: f"head.meta.{n}" for n in _META},
    **{n: f"head.ensemble.{n}" for n in ("gram_merge", "cls_merge")}, "kshot_rw": "head.shots.kshot_rw",
}  # fmt: skip
_HDMNET = {
    **_BAM, **{n: f"head.{n}" for n in ("query_merge", "supp_merge")}, "transformer": "head.transformer",
}  # fmt: skip
# What BAM's files call parts of its base network -> what CWT's do. Those of whole models come last,
# HDMNet's spelt so.
_BAM_BASE = {
    "ppm.": "ppm.", "cls.4.": "classifier.", "cls.": "bottleneck.",
    "learner_base.0.": "ppm.", "learner_base.1.4.": "classifier.", "learner_base.1.": "bottleneck.",
    "base_learnear.2.": "classifier.",
}  # fmt: skip
_BLOCKS_OF_STAGE_3 = {6: 50, 23: 101}


@seeded(0)  # empty networks, which the files then fill
def convert(kind: str, inputs: Sequence[Path], out: Path, config: Config) -> dict[str, Any]:
    """Write a checkpoint of ours from published files, and return what it says of itself.

    Args:
        kind: "backbone" (ImageNet ResNet), "cwt-base" (the base PSPNet), "cwt" (that and the classifier
            weight transformer, two files), "asgnet", "pfenet", "hsnet" or "dcama" (the whole model),
            "repri-base" (the base PSPNet of RePRI), "repri" (the same, with the head), "bam-base" (the base
            PSPNet of BAM), "bam" or "hdmnet" (the whole model).
        config: what the files do not tell: data, fold and size that they were trained on, shots, and head
            options without parameters.

    Raises:
        UserError: a file that cannot be read, names or shapes that do not fit, or `out` exists.
    """
    if kind != "backbone" and config.data.fold == -1:
        raise UserError("fold -1 holds out every class; name the fold that the files were trained on")
    if out.exists():
        raise UserError(f"{out} exists; name another file")
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
    _refuse_other_kind(state, kind, source)
    model, about, named = KINDS[kind].make(state, config, source)
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


def _backbone(state: State, config: Config, source: str) -> Converted:
    state = rename(state)
    backbone = _resnet(state, source)
    return backbone, {"stage": "backbone", "backbone": _told(backbone)}, state


def _cwt_base(state: State, config: Config, source: str, biased: str = "") -> Converted:
    backbone = _resnet(state, source)
    neck = _neck(state, backbone, source, biased)
    model = BaseSegmenter(backbone, neck, _sizes(state, "classifier.weight", source)[0])
    who = Identity.of_base(_shaped(config, backbone, neck), fold_classes(config.data).trained)
    return model, who.account(backbone.settled()), _renamed(state, _BASE)


def _cwt(state: State, config: Config, source: str) -> Converted:
    backbone = _resnet(state, source)
    neck = _neck(state, backbone, source)
    hidden, width = _sizes(state, "w_qkvs.weight", source)
    if width != neck.channels:
        raise UserError(f"{source}: the transformer is for {width} channels, the network has {neck.channels}")
    shaped = _shaped(config, backbone, neck, {"heads": hidden // width, "transformer": True})
    kept = {k: v for k, v in _renamed(state, _CWT).items() if k != "classifier.weight"}
    return *_few_shot(shaped, backbone, neck), kept


def _asgnet(state: State, config: Config, source: str) -> Converted:
    backbone = _resnet(state, source)
    context = "aspp" if any(name.startswith("ASPP.") for name in state) else "pyramid"
    width = _sizes(state, "down_conv.0.weight", source)[0]
    shaped = _shaped(config, backbone, None, {"context": context, "width": width})
    return *_few_shot(shaped, backbone, None), _renamed(state, _ASGNET)


def _pfenet(state: State, config: Config, source: str) -> Converted:
    backbone = _resnet(state, source)
    shaped = _shaped(config, backbone, None, {"width": _sizes(state, "down_query.0.weight", source)[0]})
    return *_few_shot(shaped, backbone, None), _renamed(state, _PFENET)


def _hsnet(state: State, config: Config, source: str) -> Converted:
    backbone, state = _with_network(state, "backbone.", source)
    return *_few_shot(_shaped(config, backbone, None), backbone, None), _renamed(state, _HSNET)


def _dcama(state: State, config: Config, source: str) -> Converted:
    backbone, state = _with_network(state, "feature_extractor.", source)
    codes = {k: v for k, v in state.items() if k.startswith("model.pe.")}
    for name, code in codes.items():
        formula = positions(*code.shape[-2:]) if code.dim() == 3 else torch.full((1,), torch.nan)
        if not torch.allclose(code.float(), formula, atol=1e-3):
            raise UserError(f"{source}: {name} is not the position code that DCAMA is published with")
    learned = {k: v for k, v in state.items() if k not in codes}
    return *_few_shot(_shaped(config, backbone, None), backbone, None), _renamed(learned, _DCAMA)


def _with_network(state: State, inside: str, source: str) -> tuple[ResNet, State]:
    """An empty undilated ResNet, and a state dict in its names; inside the published one they are
    torchvision's, as in ImageNet's files."""
    network = rename({k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)})
    rest = {k: v for k, v in state.items() if not k.startswith(inside)}
    return _resnet(network, source, stride=32), {**network, **rest}


def _repri_base(state: State, config: Config, source: str) -> Converted:
    return _cwt_base(state, config, source, biased="RePRI")


def _repri(state: State, config: Config, source: str) -> Converted:
    backbone = _resnet(state, source)
    neck = _neck(state, backbone, source, biased="RePRI")
    kept = {k: v for k, v in _renamed(state, _BASE).items() if not k.startswith("classifier.")}
    return *_few_shot(_shaped(config, backbone, neck), backbone, neck), kept


def _bam_base(state: State, config: Config, source: str) -> Converted:
    return _cwt_base(_as_cwt(state), config, source, biased="BAM")


def _bam(state: State, config: Config, source: str) -> Converted:
    options = {"width": _sizes(state, "down_query.0.weight", source)[0]}
    state = _as_cwt(state)
    return _with_ensemble(state, config, source, "BAM", options, _renamed(state, _BAM))


def _hdmnet(state: State, config: Config, source: str) -> Converted:
    width, embed = (_sizes(state, f"{name}.0.weight", source)[0] for name in ("down_query", "query_merge"))
    options = {"width": width, "embed": embed, "psi": "published" if config.train.shots > 1 else "mean"}
    return _with_ensemble(_as_cwt(state), config, source, "HDMNet", options, hdmnet_names(state))


def hdmnet_names(state: State) -> dict[str, Tensor]:
    """Parameters under our names; the decoder's norms count no steps, since they never learn statistics."""
    inside = "transformer.mix_transformer."
    counters = {n for n in state if n.startswith(inside) and n.endswith("num_batches_tracked")}
    learned = {n.replace(inside, "transformer."): x for n, x in state.items() if n not in counters}
    return _renamed(_as_cwt(learned), _HDMNET)


def _with_ensemble(
    state: State, config: Config, source: str, whose: str, options: Mapping[str, Any],
    named: dict[str, Tensor],
) -> Converted:  # fmt: skip
    """A head that merges a base learner's answer with its own, from its files' parameters: those of the base
    network under CWT's names, and all of them under ours."""
    backbone = _resnet(state, source)
    neck = _neck(state, backbone, source, biased=whose)
    _require_shots(state, config, source)
    shaped = _shaped(config, backbone, neck, options)
    classifier = nn.Conv2d(neck.channels, _sizes(state, "classifier.weight", source)[0], 1)
    model, about = _few_shot(shaped, backbone, neck, classifier)
    if not about["head"]["ensemble"]:  # the meta learner alone
        named = {k: v for k, v in named.items() if not k.startswith(("classifier.", "head.ensemble."))}
    return model, about, named


def _as_cwt(state: State) -> State:
    """BAM's base network under CWT's names. A backbone stands in its file twice, the second time unused."""
    out = {}
    for name, value in state.items():
        start = next((x for x in _BAM_BASE if name.startswith(x)), "")
        if not name.startswith("encoder."):
            out[_BAM_BASE.get(start, "") + name.removeprefix(start)] = value
    return out


def _require_shots(state: State, config: Config, source: str) -> None:
    """`UserError` where a file's weights of shots are for another number of them than was said."""
    name = "kshot_rw.0.weight"
    own = _sizes(state, name, source)[1] if name in state else 1
    if own != config.train.shots:
        raise UserError(
            f"{source} was trained with {own} shot(s), not {config.train.shots}; say --shots {own}"
        )


class Kind(NamedTuple):
    """A kind of published file: what makes a model of it, and the head whose recipe has its settings."""

    make: Callable[[State, Config, str], Converted]
    head: str = "cwt"


KINDS = {
    "backbone": Kind(_backbone),
    "cwt-base": Kind(_cwt_base),
    "cwt": Kind(_cwt),
    "asgnet": Kind(_asgnet, "asgnet"),
    "pfenet": Kind(_pfenet, "pfenet"),
    "hsnet": Kind(_hsnet, "hsnet"),
    "dcama": Kind(_dcama, "dcama"),
    "repri-base": Kind(_repri_base, "repri"),
    "repri": Kind(_repri, "repri"),
    "bam-base": Kind(_bam_base, "bam"),
    "bam": Kind(_bam, "bam"),
    "hdmnet": Kind(_hdmnet, "hdmnet"),
}


# Heads whose published base network is not the one that all heads share -> the recipe of its training.
OWN_BASE = {"repri": "repri_base", "bam": "bam_base", "hdmnet": "bam_base"}

# What a name of a published file begins with -> the kinds that have it.
_SIGNS = {
    "hpn_learner.": ("hsnet",),
    "base_learnear.": ("hdmnet",),
    "model.DCAMA_blocks.": ("dcama",),
    "down_query.": ("pfenet", "bam", "hdmnet"),
    "learner_base.": ("bam",),
    "cls.4.": ("bam-base",),
    "down_conv.": ("asgnet",),
    "w_qkvs.": ("cwt",),
    "classifier.bias": ("repri", "repri-base"),
}


def check_kind(kind: str) -> None:
    """`UserError` for a kind that is none."""
    if kind not in KINDS:
        raise UserError(f"unknown --kind {kind!r}{nearest(kind, KINDS)}; allowed: {', '.join(KINDS)}")


def _refuse_other_kind(state: State, kind: str, source: str) -> None:
    """`UserError` for files of another kind; the message names it."""
    if any(name.startswith("head.") for name in state):
        raise UserError(f"{source} is a checkpoint of this project: use it as it is, with --checkpoint")
    for sign, kinds in _SIGNS.items():
        if kind not in kinds and any(name.startswith(sign) for name in state):
            raise UserError(f"{source} holds {sign}*: it is of --kind {' or '.join(kinds)}, not {kind}")


def _few_shot(
    config: Config, backbone: ResNet, neck: Neck | None, classifier: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    who = Identity.of_few_shot(config, fold_classes(config.data).trained)
    parts = backbone, neck, False, classifier, config.train.shots
    model = build_model(config.head.type, config.head.options, *parts)
    return model, {**who.account(backbone.settled()), "shots": config.train.shots}


def _shaped(
    config: Config, backbone: ResNet, neck: Neck | None, options: Mapping[str, Any] | None = None
) -> Config:
    """The configuration, with the layers, neck and head options that the files have."""
    part = BackboneConfig(**_told(backbone), stride=backbone.stride)
    update: dict[str, Any] = {"backbone": part, "network": "base" if neck else "weights"}
    if neck:
        dropout, bias = config.neck.options.get("dropout", 0.1), neck.classifier_bias
        update["neck"] = NeckConfig(type="ppm", channels=neck.channels, dropout=dropout, classifier_bias=bias)
    if options:
        update["head"] = HeadConfig(type=config.head.type, **{**config.head.options, **options})
    return config.model_copy(update=update)


def _resnet(state: State, source: str, stride: int = 8) -> ResNet:
    """An empty ResNet of the layers and stem that a state dict of published names has."""
    blocks = {name.split(".")[1] for name in state if name.startswith("layer3.")}
    if len(blocks) not in _BLOCKS_OF_STAGE_3 or "layer4.0.conv3.weight" not in state:
        raise UserError(
            f"{source} holds no ResNet-50 or 101: wanted layer4.0.conv3.weight, and 6 or 23 blocks in layer3 "
            f"(it has {len(blocks)}). For `cwt` give two files: the base model and the transformer"
        )
    name, stem = f"resnet{_BLOCKS_OF_STAGE_3[len(blocks)]}", "deep" if has_deep_stem(state) else "plain"
    return cast(ResNet, make_backbone(name, None, {"stem": stem, "stride": stride}))


def _told(backbone: ResNet) -> dict[str, Any]:
    return {"type": f"resnet{backbone.layers}", **backbone.settled()}


def _neck(state: State, backbone: ResNet, source: str, biased: str = "") -> PyramidPooling:
    """The neck that the files hold; `biased` is whose it is, where its classifier has to have a bias."""
    if biased and "classifier.bias" not in state:
        raise UserError(
            f"{source}: no classifier.bias, which {biased}'s network has; for CWT's take --kind cwt-base"
        )
    channels = _sizes(state, "bottleneck.0.weight", source)[0]
    return PyramidPooling(backbone.channels, channels, classifier_bias=bool(biased))


def _sizes(state: State, name: str, source: str) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"{source}: no {name} among its {len(state)} names; is it of this --kind?")
    if state[name].dim() < 2 or not 0 < max(state[name].shape[:2]) <= 2**20 or 0 in state[name].shape:
        raise UserError(f"{source}: {name} has the shape {tuple(state[name].shape)}, which no such layer has")
    return tuple(state[name].shape[:2])


def _renamed(state: State, table: Mapping[str, str]) -> dict[str, Tensor]:
    out = {}
    for name, value in state.items():
        head, dot, tail = name.partition(".")
        out[f"{table.get(head, head)}{dot}{tail}"] = value
    return out


def run_convert(
    kind: str, inputs: Sequence[Path], out: Path, data: str, settings: Sequence[str], extra: Sequence[str]
) -> None:
    """Convert published weights into a checkpoint, and print how to use it."""
    check_kind(kind)
    head = KINDS[kind].head
    own = OWN_BASE.get(head)  # what published networks were trained by
    recipes = [own, *extra] if own else extra
    config = load_config(data, head, settings, recipes)
    about = convert(kind, inputs, out, config)
    part = about["backbone"]
    what = f"{part['type']}, {part['stem']} stem"
    if kind == "backbone":
        print(f"{out}: {what}. Use it with backbone.weights={out}")
        return
    on = f"{about['data']} fold {about['fold']}"
    if about["stage"] == "base":
        recipe = f" and --config {own}" if own else ""
        print(f"{out}: base network, {what}, {on}. Use it with network={out}{recipe}")
        return
    said = [text for text in settings if not text.startswith(("data.fold=", "train.shots="))]
    said += [f"--config {name}" for name in recipes]
    if about["head"]["type"] == "asgnet":
        said.append(f"head.context={about['head']['context']}")
    run = f"--data {data} --fold {about['fold']} --layers {part['type']} --shots {about['shots']}"
    print(f"{out}: {head}, {what}, {on}, {about['shots']} shot(s). Try it with")
    print(" ".join([f"  fss test {run} --head {head} --checkpoint {out}", *said]))
