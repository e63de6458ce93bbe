"""The identity of a checkpoint: all that must agree before it is taken for the wanted one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fss.backbones import KIND as BACKBONES
from fss.config import Config, Part, Resize
from fss.errors import UserError, rule
from fss.heads import KIND as HEADS
from fss.necks import KIND as NECKS
from fss.spelling import backbone_name
from fss.spelling import neck as modern_neck

_KINDS = {"backbone": BACKBONES, "neck": NECKS, "head": HEADS}


class Identity(BaseModel):
    """A network's stage of training, what it was trained on, and its parts with all their options.

    Attributes:
        stage: "base" for a network of base training, "few-shot" for one with a head.
        size: S of whole images, pixels.
        train_masks: name of the masks that it learnt from; None for the true ones.
        resize: how whole images come to S x S. A base network learns from crops, and serves both ways.
    """

    model_config = ConfigDict(frozen=True)
    stage: Literal["base", "few-shot"]
    data: str
    fold: int
    base_classes: list[str]
    size: int
    backbone: Part
    neck: Part | None = None
    head: Part | None = None
    novel_in_train: str = "background"
    boundary_in_train: str = "ignore"
    train_masks: str | None = None
    resize: Resize = "pad"

    @classmethod
    def of_base(cls, config: Config, base_names: Sequence[str]) -> "Identity":
        """The base network that a configuration asks for."""
        data, neck = config.data.for_base, whole("neck", config.neck)
        return cls(
            stage="base", data=data.trained_name, fold=data.fold, base_classes=list(base_names),
            size=config.base_size, backbone=whole("backbone", config.backbone), neck=neck,
            novel_in_train=data.novel_in_train, boundary_in_train=data.boundary_in_train,
            train_masks=data.masks_name,
        )  # fmt: skip

    @classmethod
    def of_few_shot(cls, config: Config, base_names: Sequence[str]) -> "Identity":
        """The network with a head that a configuration asks for."""
        neck = whole("neck", config.neck) if config.with_neck else None
        head, data = whole("head", config.head), config.data
        changed = {
            "stage": "few-shot", "neck": neck, "head": head, "resize": data.resize, "size": data.size,
            "novel_in_train": data.novel_in_train,
        }  # fmt: skip
        return cls.of_base(config, base_names).model_copy(update=changed)

    def account(self, settled: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Plain values for a checkpoint; `settled` are options of the backbone that its weights decided."""
        said = self.model_dump(mode="json")
        said["backbone"] |= dict(settled or {})
        return said


def whole(kind: str, part: Part) -> Part:
    """A part with all its options, those that were not set at their defaults.

    Raises:
        UserError: as `Kind.options`.
    """
    return Part(type=part.type, **_KINDS[kind].options(part.type, _options(part)))


def _options(part: Part) -> dict[str, Any]:
    return {k: v for k, v in part.options.items() if k != "weights"}


def modern(about: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's account in today's words: 0.1 kept a ResNet's layers and stem, and a head's options,
    apart."""
    out = dict(about)
    if isinstance(out.get("layers"), int):
        stride = {"stride": out.pop("stride", 8)}
        out["backbone"] = {
            "type": backbone_name(out.pop("layers")),
            "stem": out.pop("stem", "deep"),
            **stride,
        }
    if isinstance(out.get("layers"), list):  # an account of the networks that write pseudo-masks
        stems = out.pop("stems", ())
        out["backbones"] = [
            {"type": backbone_name(n), "stem": s} for n, s in zip(out.pop("layers"), stems, strict=False)
        ]
    if isinstance(out.get("head"), str):
        options = {k: v for k, v in dict(out.pop("head_options", {})).items() if (k, v) != ("tokens", "none")}
        out["head"] = {"type": out["head"], **options}
    if isinstance(out.get("neck"), Mapping):
        # 0.1 wrote `options` for necks from outside alone, whose other keys are their own affair today.
        ours: dict[str, Any] = {} if ":" in str(out["neck"].get("type")) else {"options": {}}
        out["neck"] = modern_neck({**ours, **out["neck"]})
    out.pop("vit_size", None)
    return out


def identify(about: Mapping[str, Any], what: str) -> Identity:
    """The identity in a checkpoint's account, of any version.

    Raises:
        UserError: `what` does not say what it holds, or holds a part that is not to be had.
    """
    try:
        return Identity.model_validate(modern(about))
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, said['loc']))}: {rule(said)}" if said else repr(error)
        raise UserError(f"{what} does not say what it holds ({why}); train or convert it anew") from None


def require(about: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Hold a checkpoint's account against what is wanted; options that are "auto" there may be anything.

    Raises:
        UserError: names each differing field, its value and the wanted one.
    """
    about, differ = modern(about), []
    # A base network does not depend on the stride of the map that heads get.
    unlike = {"stride"} if wanted.get("stage") == "base" else set()
    for key, value in wanted.items():
        own = about.get(key, _ABSENT.get(key))
        mine, theirs = _plain(key, own), _plain(key, value)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            mine = mine | {k: v for k, v in theirs.items() if v == "auto" or (key == "neck" and k in unlike)}
        if mine != theirs:
            differ.append(f"{key} is {_shown(own, mine, theirs)}, wanted {_shown(value, theirs, mine)}")
    if differ:
        raise UserError(
            f"{what} is another kind of checkpoint: {'; '.join(differ)}. Ask for what it is, or name "
            "another; a run of your own can also be moved away and trained anew"
        )


# Values of fields that older checkpoints lack.
_ABSENT = {"novel_in_train": "background", "boundary_in_train": "ignore", "resize": "pad"}


def _plain(key: str, value: Any) -> Any:
    """A value as JSON has it, where [1] and (1,) are one; a part with all its options."""
    if key in _KINDS and isinstance(value, Mapping) and "type" in value:
        given = {k: v for k, v in value.items() if k != "type"}
        try:
            value = {"type": value["type"], **_KINDS[key].options(value["type"], given)}
        except UserError:  # options that this version does not know are compared as they stand
            value = dict(value)
    return json.loads(json.dumps(value, default=str))


def _shown(value: Any, mine: Any, other: Any) -> Any:
    """A part in a message: its type, and the options alone in which it differs."""
    if not isinstance(mine, dict) or "type" not in mine:
        return value
    if not isinstance(other, dict) or mine["type"] != other.get("type"):
        return mine["type"]
    differ = [f"{k}={v}" for k, v in mine.items() if other.get(k, _MISSING) != v]
    return f"{mine['type']} with {', '.join(differ) or 'no such option'}"


_MISSING = object()
