"""Brings results of every version into today's spelling; nothing else in `fss.report` knows older ones."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from fss.backbones import BACKBONES
from fss.necks import NECKS
from fss.parts import import_class
from fss.spelling import modern

Content = dict[str, Any]
# Settings of the network that older results lack, with the value that every network had before them.
_NETWORK: Content = {
    "network": "base", "backbone.stride": 8, "neck.align": True, "neck.stride": 8, "neck.gate": "conv",
}  # fmt: skip
# Settings that do not tell networks apart, because they concern training alone or name files of one machine.
_APART = ("backbone.weights", "neck.dropout", "neck.auxiliary")
# Options that heads no longer have, with the value at which today's head does the same.
_GONE = {"asgnet": {"tokens": "none"}}


def one_spelling(content: Content) -> Content:
    """A result's content as today's version would have written it; damaged parts are left as they are.

    A network is named as in the configuration: `config` holds "backbone" and "neck", each with a type and
    options, and "network": "base", "weights", or a file. `checkpoint` holds "backbone", "neck" and "head" in
    the same form; `shots` holds "train" and "test".
    """
    new = dict(content)
    for key, change in {"config": _config, "checkpoint": _checkpoint, "head": _head}.items():
        if isinstance(new.get(key), dict):
            new[key] = change(dict(new[key]))
    told, protocol = content.get("checkpoint"), content.get("protocol")
    if "shots" not in new and isinstance(told, dict) and isinstance(protocol, dict) and "learned" in told:
        trained = told.get("shots") if told["learned"] else None
        new["shots"] = {"train": trained, "test": protocol.get("shots")}
    return new


def network_of(content: Content) -> Content:
    """The settings that tell networks under a head apart, by dotted keys; takes today's spelling.

    The configuration decides; the checkpoint tells what it leaves open ("auto"). An external model has one
    key alone: {"network": "external"}.
    """
    config, told = content["config"], content.get("checkpoint") or {}
    foreign = "external" in told and "backbone" not in config  # a network of ours, trained elsewhere, has one
    if content.get("frozen_sha256") == "external" or foreign or _kind(config) == "external":
        return {"network": "external"}
    found = {**_NETWORK, "network": _kind(config)}
    for part, table in (("backbone", BACKBONES), ("neck", NECKS)):
        for section in (defaults_of(config.get(part), table), told.get(part), config.get(part)):
            given = section if isinstance(section, dict) else {}
            found |= {f"{part}.{k}": v for k, v in given.items() if v not in ("auto", None)}
    if found["network"] == "weights":
        found = {k: v for k, v in found.items() if not k.startswith("neck.")}
    return {k: v for k, v in found.items() if k not in _APART}


def defaults_of(part: Any, table: Mapping[str, str]) -> Content:
    """The default options of a backbone, neck or head of `table`; {} for others, which are not imported.

    Args:
        part: its section, {"type": name, ...}.
        table: name -> import path, such as `HEADS`.
    """
    name = part.get("type") if isinstance(part, dict) else None
    if not isinstance(name, str) or name not in table:
        return {}
    parameters = signature(import_class("part", table[name])[0]).parameters
    return {k: p.default for k, p in parameters.items() if p.default is not p.empty}


def _kind(config: Content) -> str:
    """The network under the head: "base", "weights", "external", or "file" for a file of any name."""
    named = str(config.get("network") or "base")
    return named if named in ("base", "weights", "external") else "file"


def _config(config: Content) -> Content:
    try:
        return modern(config)
    except (AttributeError, TypeError, ValueError):  # a damaged file can hold anything
        return config


def _checkpoint(told: Content) -> Content:
    loose = {k: told.pop(k) for k in ("layers", "stem", "stride", "vit_size") if k in told}
    told |= _config({"neck": told["neck"]}) if "neck" in told else {}
    told |= _config({"backbone": loose}) if loose else {}
    if isinstance(told.get("head"), str):
        options = told.pop("head_options", {})
        told["head"] = _head({"type": told["head"], **(options if isinstance(options, dict) else {})})
    if isinstance(told.get("base"), dict):
        told["base"] = _checkpoint(dict(told["base"]))
    return told


def _head(old: Content) -> Content:
    gone = _GONE.get(str(old.get("type")), {})
    return {k: v for k, v in old.items() if k not in gone or v != gone[k]}
