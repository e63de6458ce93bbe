"""What makes a row of a table: one network and one way of training, as settings by dotted keys."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fss.config import PretrainConfig, TrainConfig
from fss.heads import HEADS
from fss.report.versions import defaults_of, network_of
from fss.writing import plain_line

Recipe = dict[str, Any]
# Settings of a training that change no number, and the shots, which have a column.
_IDLE = ("accumulate", "keep", "cache", "shots")
# Settings that a checkpoint records of its training; they hold if the checkpoint was given as a file.
_RECORDED = ("batch", "seed", "precision")


def recipe_of(content: dict[str, Any]) -> Recipe:
    """Head, network, weights, precision, and each training that was done; takes today's spelling.

    Of a checkpoint that was given as a file the configuration does not say how it was trained: then what it
    tells itself stands in the place of the schedule.
    """
    config, told = content["config"], content.get("checkpoint") or {}
    found = {**defaults_of(content["head"], HEADS), **content["head"], **network_of(content)}
    found["tag"] = config.get("tag") or ""
    if found["network"] != "external":
        base = told["base"] if isinstance(told.get("base"), dict) else told
        found["precision"] = content.get("precision")
        found |= _weights(config, base)
        given = str(content["protocol"].get("selection", "")).startswith(("a ", "external"))
        if found["network"] != "weights":
            ours = found["network"] == "base" and not given
            found |= _training("pretrain", PretrainConfig, config if ours else None, base)
        if content["shots"]["train"] is not None:
            found |= _training("train", TrainConfig, None if given else config, told)
    return {k: _plain(v) for k, v in found.items()}


def _weights(config: dict[str, Any], base: dict[str, Any]) -> Recipe:
    """The backbone's first weights: their name, and a checksum, since two files may have one name."""
    section = config.get("backbone")
    name = base.get("weights") or (section.get("weights") if isinstance(section, dict) else None)
    return {"weights": Path(str(name)).name, _CHECKSUM: str(base.get("backbone_sha256"))[:8]}


def _training(name: str, schedule: type[BaseModel], config: Recipe | None, told: Recipe) -> Recipe:
    """The settings of one training, those that older results lack at their defaults, and what is told."""
    section: Recipe = {}
    if config is not None:
        given = config.get(name)
        section = {k: f.default for k, f in schedule.model_fields.items()} | {"seed": config.get("seed")}
        section |= given if isinstance(given, dict) else {}
    section |= {k: told[k] for k in _RECORDED if k in told}
    return {f"{name}.{k}": v for k, v in section.items() if k not in _IDLE}


def _plain(value: Any) -> Any:
    """A value as JSON has it, with whole numbers of one kind: 60.0 is 60, (1, 2) is [1, 2]."""
    return json.loads(json.dumps(value, default=str), parse_float=_number)


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


_CHECKSUM = "weights_sha256"


def labels(recipes: Sequence[Recipe]) -> list[str]:
    """Names of rows: the head and its tag, and each setting in which heads of one name differ."""
    return [_label(own, recipes) for own in recipes]


def _label(own: Recipe, every: Sequence[Recipe]) -> str:
    differ = [k for k in own if k != "tag" and any(o.get(k) != own[k] for o in _kin(k, own, every))]
    name = own["type"].rpartition(":")[2]
    tag = [f"({own['tag']})"] if own["tag"] else []
    return plain_line(" ".join([name, *(f"{k}={own[k]}" for k in differ), *tag]))


def _kin(key: str, own: Recipe, every: Sequence[Recipe]) -> list[Recipe]:
    """Recipes in which `key` means the same: those of one head and, for an option of a part, of that part.

    A checksum says little to a reader, and is named only where nothing else differs.
    """
    if key == _CHECKSUM:
        return [o for o in every if {**o, key: None} == {**own, key: None}]
    part, dot, _ = key.partition(".")
    if part in ("pretrain", "train"):  # whether there was a training at all stands elsewhere in the row
        every = [o for o in every if key in o]
    same = {"type", f"{part}.type"} - {key} if dot else {"type"}
    return [o for o in every if all(o.get(k) == own.get(k) for k in same)]
