"""Heads by name. A head of your own is named in YAML by its import path, `my_pkg.my_file:MyHead`."""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fss.errors import UserError
from fss.heads.base import Cut, Encoded, Features, Head, HeadOutput, Panel
from fss.parts import Kind, check_methods

HEADS = {
    "asgnet": "fss.heads.asgnet:ASGNet",
    "bam": "fss.heads.bam:BAM",
    "cwt": "fss.heads.cwt:CWT",
    "dcama": "fss.heads.dcama:DCAMA",
    "hdmnet": "fss.heads.hdmnet:HDMNet",
    "hsnet": "fss.heads.hsnet:HSNet",
    "insid3": "fss.heads.insid3:INSID3",
    "pfenet": "fss.heads.pfenet:PFENet",
    "prototype": "fss.heads.prototype:Prototype",
    "repri": "fss.heads.repri:RePRI",
    "votes": "fss.heads.votes:Votes",
    "votes_decoder": "fss.heads.votes_decoder:VotesDecoder",
}
KIND = Kind("head", HEADS, Head, given=("channels",), offered=("strides", "train_shots"))

__all__ = [
    "HEADS",
    "KIND",
    "Cut",
    "Encoded",
    "Features",
    "Head",
    "HeadOutput",
    "Panel",
    "build_head",
    "find_head",
]


def find_head(name: str) -> type[Head]:
    """The head class for a name of `HEADS` or an import path, held against the contract.

    Raises:
        UserError: unknown name, a file that does not import, a class that keeps no head's contract.
    """
    found: Any = KIND.find(name)
    called = KIND.called(name, found)
    if found.forward is Head.forward:
        raise UserError(f"{called} has no method forward(self, episodes)")
    if not (isinstance(found.levels, tuple | list) and found.levels):
        raise UserError(f"{called}: levels must name one feature map or more, got {found.levels!r}")
    check_methods(KIND, name, {"forward": 2, "encode": 2, "encode_support": 2, "explain": 2})
    return found


def build_head(
    name: str,
    options: Mapping[str, Any],
    channels: Mapping[str, int],
    strides: Mapping[str, int] | None = None,
    train_shots: int = 1,
) -> Head:
    """Make a head from its name and keyword arguments; `UserError` where it refuses them.

    Args:
        channels, strides: of the network's levels, as of `Backbone`.
        train_shots: K of its training. A head need not take this nor `strides`.
    """
    found = find_head(name)
    head: Head = KIND.make(
        name, options, channels=channels, strides=dict(strides or {}), train_shots=train_shots
    )
    head.register_forward_hook(functools.partial(_check_output, KIND.called(name, found)))
    return head


def _check_output(called: str, head: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, HeadOutput):
        raise UserError(f"{called}: forward must return a HeadOutput, not {type(output).__name__}")
    episodes, logits = len(inputs[0]), output.logits
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise UserError(f"{called}: logits must be a floating point tensor, got {type(logits).__name__}")
    if logits.dim() != 4 or logits.shape[:2] != (episodes, 2) or 0 in logits.shape:
        raise UserError(f"{called}: logits must be (B,2,h,w) with B = {episodes}, got {tuple(logits.shape)}")
    for what, values, shape in (("losses", output.losses, ()), ("notes", output.notes, (episodes,))):
        if not isinstance(values, dict):
            raise UserError(f"{called}: {what} must be a dict, got {type(values).__name__}")
        for key, value in values.items():
            if not isinstance(value, Tensor) or value.shape != shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                raise UserError(f"{called}: {what}[{key!r}] must be a tensor of shape {shape}, got {got}")
