"""A frozen network as it is computed: norms folded, one number format, fewer products."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fss.backbones.winograd import Winograd, suits


def fold(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy for inference: each norm that directly follows a convolution becomes part of it.

    The arithmetic of folding is done in float32; weights are then rounded to `dtype` once, and laid out
    channels last. The original keeps its parameters, which checkpoints and checksums are about.
    A part with a `settle` method is told that its weights are final.

    Args:
        module: in evaluation mode; a norm stands right after its convolution in the order of children.
    """
    folded = _fold_children(copy.deepcopy(module).float())
    folded = folded.to(dtype=dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for part in list(folded.modules()):
        settle: Any = getattr(part, "settle", None)
        if settle:
            settle()
    return _with_fewer_products(folded)


def _fold_children(module: nn.Module) -> nn.Module:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if before and isinstance(child, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        else:
            _fold_children(child)
        before = (name, child)
    return module


def _with_fewer_products(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, Winograd(child) if suits(child) else _with_fewer_products(child))
    return module


def state_of(*modules: nn.Module | None) -> tuple[tuple[int, int], ...]:
    """Changes whenever a parameter or buffer is moved, loaded or edited in place."""
    tensors = [t for m in modules if m is not None for t in _tensors(m)]
    return tuple((t.data_ptr(), t._version) for t in tensors)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
