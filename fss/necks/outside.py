"""A neck by its import path, and telling what is wrong with its class."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fss.config import NeckConfig
from fss.errors import UserError
from fss.necks.base import Neck
from fss.outside import import_class


def make_outside(name: str, inputs: Mapping[str, int], settings: Mapping[str, Any]) -> Neck:
    """The neck of `name`, package.module:Class, with those of the schema's settings that its signature takes.

    Args:
        settings: of `NeckConfig`; what stands in its `options` must be taken.

    Raises:
        UserError: it cannot be imported, is no neck, lacks an argument or has no use for a setting.
    """
    found, file = import_class("neck", name)
    called = f"neck {name!r} ({file})"
    if not (inspect.isclass(found) and issubclass(found, Neck)):
        raise UserError(f"{called} is no subclass of fss.necks.Neck")
    if found.decode is Neck.decode:
        raise UserError(f"{called} has no method decode(features)")
    takes, own = list(inspect.signature(found).parameters)[1:], dict(settings.get("options", {}))
    usual = {key: field.default for key, field in NeckConfig.model_fields.items()}
    usual |= {"channels": settings.get("channels")}  # every neck tells its own
    set_here = [k for k, v in settings.items() if k != "options" and v != usual.get(k)]
    unused = [k for k in [*own, *set_here] if k not in takes]
    if unused:
        where = f"neck.options.{unused[0]}" if unused[0] in own else f"neck.{unused[0]}"
        raise UserError(f"{called} takes no {unused[0]}, which {where} sets; it takes {', '.join(takes)}")
    given = {k: v for k, v in settings.items() if k in takes and k != "options"} | own
    try:
        neck = found(inputs, **given)
        neck.inputs, neck.channels  # noqa: B018
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        told = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise UserError(
            f"{called}: __init__ fails with {told}; it is called with inputs, {', '.join(given)} and must "
            "begin with super().__init__(inputs, channels)"
        ) from error
    neck.register_forward_hook(lambda made, _, output: _check(called, made, output))
    return neck


def _check(called: str, neck: Any, output: Any) -> None:
    """What heads get must be one map of as many channels as the neck tells."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[1] != neck.channels:
        raise UserError(f"{called}: the map must be (B,{neck.channels},h,w), got {shape}")
