"""What "frozen" means here: no gradients, evaluation mode for good, and a checksum to prove it."""

import hashlib

import torch
from torch import nn


def freeze(module: nn.Module) -> nn.Module:
    """Put `module` into evaluation mode and switch its gradients off, in place; returns it.

    `FewShotModel.train` leaves frozen parts in evaluation mode, so batch norms' buffers never move.
    """
    return module.eval().requires_grad_(False)


def checksum(module: nn.Module) -> str:
    """sha256 over all parameters and buffers, names included: equal if and only if bit-identical."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        data = value.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()
