"""Whether the frozen network runs in bfloat16."""

import torch


def wants_half(precision: str, device: torch.device) -> bool:
    """Settle `precision`: auto takes bfloat16 where the device computes in it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
