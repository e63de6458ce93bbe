"""Necks, the decoders of the frozen network, by name. One of your own: `my_pkg.my_file:MyNeck`."""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fss.errors import UserError
from fss.necks.base import Decoded, Neck
from fss.parts import Kind, check_methods

NECKS = {
    "ppm": "fss.necks.ppm:PyramidPooling",
    "alignseg": "fss.necks.alignseg:AlignSeg",
    "sfnet": "fss.necks.sfnet:SFNet",
    "sfnet_gated": "fss.necks.sfnet:GatedSFNet",
    "fpn": "fss.necks.sfnet:FPN",
}
KIND = Kind("neck", NECKS, Neck, given=("inputs",))

__all__ = ["KIND", "NECKS", "Decoded", "Neck", "make_neck"]


def make_neck(
    name: str,
    inputs: Mapping[str, int],
    options: Mapping[str, Any],
    strides: Mapping[str, int] | None = None,
) -> Neck:
    """A neck by its name in `NECKS`, or by its import path, on stages of these channels and strides.

    Raises:
        UserError: an unknown name, a class that does not keep the contract, or options that it refuses.
    """
    found: Any = KIND.find(name)
    called = KIND.called(name, found)
    if found.decode is Neck.decode:
        raise UserError(f"{called} has no method decode(features)")
    check_methods(KIND, name, {"decode": 2, "side_classifiers": 2})
    lacking = [level for level in found.levels if level not in inputs]
    if lacking:
        raise UserError(f"{called} needs {', '.join(lacking)}; this backbone has {', '.join(inputs)}")
    neck: Neck = KIND.make(name, options, inputs=inputs)
    if not (hasattr(neck, "inputs") and hasattr(neck, "channels")):
        raise UserError(f"{called}: __init__ must begin with super().__init__(inputs, channels)")
    neck.settle_on(strides or {})
    neck.register_forward_hook(functools.partial(_check, called))
    return neck


def _check(called: str, neck: nn.Module, inputs: Any, output: Any) -> None:
    """Hold the map that heads get against the channels that the neck tells."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[1] != neck.channels:
        raise UserError(f"{called}: the map must be (B,{neck.channels},h,w), got {shape}")
