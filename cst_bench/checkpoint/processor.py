"""Capabilities of the CPU."""

from __future__ import annotations


def multiplies_bf16() -> bool:
    """Return whether the CPU has instructions for bfloat16 products, and PyTorch's build uses them."""
    import torch

    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return instructions and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
