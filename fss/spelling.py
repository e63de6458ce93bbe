"""Settings as version 0.1 spelled them, brought to today's spelling: the one place that knows the old one."""

from collections.abc import Mapping
from typing import Any

_NECK_OPTIONS = {  # which necks took which options; 0.1 wrote all of them for every neck
    "align": ("alignseg", "sfnet", "sfnet_gated"),
    "stride": ("alignseg", "sfnet", "sfnet_gated", "fpn"),
    "auxiliary": ("alignseg", "sfnet", "fpn"),
    "gate": ("sfnet_gated",),
}
_DEFAULTS = {"dropout": 0.1, "align": True, "stride": 8, "auxiliary": False, "gate": "conv"}


def modern(tree: Mapping[str, Any], network: Any = None) -> dict[str, Any]:
    """A tree of settings, whole or in part, with every key where it stands today. Other trees stay equal.

    `backbone.layers` is part of `backbone.type`; `backbone.stage1` and `backbone.base` are `network`;
    `neck.options` are the neck's own keys; `pseudo.layers` names a backbone.

    Args:
        network: as set so far. An old `stage1=true` leaves a base checkpoint's file in its place, because
            0.1 asked for both.
    """
    out = dict(tree)
    if isinstance(out.get("backbone"), Mapping):
        out |= _backbone(out["backbone"], network)
    if isinstance(out.get("neck"), Mapping):
        out["neck"] = neck(out["neck"])
    if isinstance(out.get("pseudo"), Mapping):
        out["pseudo"] = _pseudo(out["pseudo"])
    return out


def backbone_name(layers: Any) -> str:
    """The backbone that a number of layers, or a name, means."""
    text = str(layers)
    return f"resnet{text}" if text.isdigit() else text


def _backbone(old: Mapping[str, Any], network: Any) -> dict[str, Any]:
    """The sections that take the place of an old `backbone`."""
    section, out = dict(old), {}
    if section.get("vit", "none") == "none":  # anything else stays, and is refused: 0.2 has no second encoder
        section.pop("vit", None)
        section.pop("vit_size", None)
    if "layers" in section:
        section.setdefault("type", backbone_name(section.pop("layers")))
    base, stage1 = section.pop("base", None), section.pop("stage1", None)
    if base is not None:
        out["network"] = str(base)
    elif stage1 is not None and not (stage1 and network not in (None, "base", "weights")):
        out["network"] = "base" if stage1 else "weights"
    if not str(section.get("type", "resnet")).startswith("resnet"):
        section = {k: v for k, v in section.items() if (k, v) not in (("stem", "auto"), ("stride", 8))}
    return {"backbone": section, **out}


def neck(old: Mapping[str, Any]) -> dict[str, Any]:
    """A neck's section: what only other necks took is left out where it stands at its default."""
    options = old.get("options") or {}
    if not isinstance(options, Mapping):  # refused, as an option that no neck takes
        return dict(old)
    section = {k: v for k, v in old.items() if k != "options"} | dict(options)
    kind = section.get("type", "ppm")
    if kind == "sfnet" and section.get("align") is False:
        kind = section["type"] = "fpn"
    if kind == "fpn" and section.get("align") is False:
        del section["align"]
    if "options" not in old:  # not a section that 0.1 wrote whole
        return section
    for key, takers in _NECK_OPTIONS.items():
        if kind not in takers and section.get(key) == _DEFAULTS[key]:
            section.pop(key, None)
    return section


def _pseudo(old: Mapping[str, Any]) -> dict[str, Any]:
    section = dict(old)
    for ours, theirs in (("backbone", "layers"), ("local_backbone", "local_layers")):
        if theirs in section:
            layers = section.pop(theirs)
            section[ours] = None if layers is None else backbone_name(layers)
    return section
