"""Attention by a kernel that suits many lengths, grouped heads and the device: SDPA, or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cst_bench.checkpoint.block_attention import block_attention, suits_blocks

if TYPE_CHECKING:
    import torch


@contextmanager
def many_lengths() -> Iterator[None]:
    """Keep SDPA from cuDNN's kernels, which build a plan for each new shape, reported to take 20 to 40 ms.

    PyTorch 2.13 prefers them on Hopper and Blackwell (`check_prefer_cudnn_attention` in its `sdp_utils.cpp`). The
    switch is PyTorch's own, of the whole process.
    """
    import torch

    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def grouped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Compute attention, where several heads of queries may share one of keys and values.

    Keys and values are repeated for kernels of SDPA that do not support that. Else PyTorch would take its slow one,
    which writes all weights to memory. Where `suits_blocks`, blocks take SDPA's place.

    Args:
        query: [batch, heads, rows, size].
        key: [batch, key heads, keys, size].
        value: [batch, key heads, keys, value size].
        mask: [rows, keys] or broadcast to it, bool or additive.
        dropout: Probability.
        causal: Whether row i sees keys 0 to i; without a mask.
        scale: Factor of the dot products; None for size to the power -1/2.

    Returns:
        [batch, heads, rows, value size].
    """
    from torch.nn.functional import scaled_dot_product_attention

    additive = mask is not None and mask.dim() == 2 and mask.dtype == query.dtype
    if suits_blocks(query) and not dropout and (causal or additive):
        return block_attention(query, key, value, mask, causal=causal, scale=scale)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1 and not _takes_groups(query, key, value, mask, dropout, causal):
        key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
        repeats = 1
    return scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=causal, scale=scale, enable_gqa=repeats > 1
    )


def _takes_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    causal: bool,
) -> bool:
    """Return whether a kernel of the device that writes no weights takes grouped heads."""
    from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

    if query.device.type == "cpu":
        return True
    if query.device.type != "cuda":
        return False
    call = SDPAParams(query, key, value, mask, dropout, causal, True)
    return can_use_flash_attention(call) or can_use_efficient_attention(call)
