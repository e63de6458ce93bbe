"""Necks, the decoders of the frozen network, by name. One of your own: `my_pkg.my_file:MyNeck`."""

import inspect
from collections.abc import Mapping
from typing import Any

from fss.necks.alignseg import AlignSeg
from fss.necks.base import Decoded, Neck
from fss.necks.outside import make_outside
from fss.necks.ppm import PyramidPooling
from fss.necks.sfnet import FPN, GatedSFNet, SFNet

NECKS: dict[str, type[Neck]] = {
    "ppm": PyramidPooling,
    "alignseg": AlignSeg,
    "sfnet": SFNet,
    "sfnet_gated": GatedSFNet,
    "fpn": FPN,
}

__all__ = ["NECKS", "Decoded", "Neck", "make_neck"]


def make_neck(name: str, inputs: Mapping[str, int], options: Mapping[str, Any]) -> Neck:
    """A neck by its name in `NECKS`, or by its import path, on stages of these channels.

    Options that it does not take are left; `fss.config.NeckConfig` refuses settings that would be left so.

    Raises:
        UserError: a class of a user's own that cannot be imported, or does not keep the contract.
    """
    if name not in NECKS:
        return make_outside(name, inputs, options)
    takes = inspect.signature(NECKS[name]).parameters
    return NECKS[name](inputs, **{k: v for k, v in options.items() if k in takes})
