"""Attention in bfloat16 on a CPU, block by block with batched products.

PyTorch's SDPA is no faster in bfloat16 than in float32 on a CPU with `avx512_bf16` and without AMX (an AMD EPYC,
PyTorch 2.13), while plain products are four times faster there. Scores and probabilities are rounded to bfloat16
between the products, as in the eager attention of transformers; each softmax is computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

    class Context(FunctionCtx):
        """Context of `_BlockAttention`."""

        saved_tensors: tuple[torch.Tensor, ...]
        mask: torch.Tensor | None
        causal: bool
        scale: float


_ROWS = 128
"""Queries of a block."""


def suits_blocks(query: torch.Tensor) -> bool:
    """Return whether block attention is faster than SDPA for these queries."""
    return query.dtype == torch.bfloat16 and query.device.type == "cpu" and len(query) == 1


def block_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool,
    scale: float | None = None,
) -> torch.Tensor:
    """Compute attention.

    Args:
        query: [1, heads, rows, size].
        key: [1, key heads, keys, size]; query head h uses key head h // (heads / key heads).
        value: [1, key heads, keys, value size].
        mask: Additive, [rows, keys].
        causal: Whether the queries are those of the last keys, and see none after their own.
        scale: Factor of the dot products; None for size to the power -1/2.

    Returns:
        [1, heads, rows, value size].
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    result: torch.Tensor = _BlockAttention.apply(query, key, value, mask, causal, scale)  # type: ignore[no-untyped-call]
    return result


def _by_key_head(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Group [1, heads, rows, size] by key head: [key heads, heads per key head, rows, size]."""
    return states.reshape(heads, -1, *states.shape[2:])


class _Block(NamedTuple):
    """Queries of a block, and their probabilities for the keys that any of them sees."""

    rows: slice
    keys: int
    """Number of keys that are seen, from the first on."""
    query: torch.Tensor
    """[key heads, heads per key head * rows, size]"""
    weights: torch.Tensor
    """[key heads, heads per key head * rows, keys]"""


def _blocks(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float
) -> Iterator[_Block]:
    """Yield the blocks of queries [key heads, group, rows, size] over keys [key heads, keys, size]."""
    heads, group, rows, _ = query.shape
    before = key.shape[1] - rows
    later = torch.ones(min(_ROWS, rows), min(_ROWS, rows), dtype=torch.bool).triu(1)
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        count, seen = stop - start, before + stop if causal else key.shape[1]
        block = query[:, :, start:stop].reshape(heads, group * count, -1)
        scores = block.new_empty(heads, group * count, seen)
        scores.baddbmm_(block, key[:, :seen].mT, beta=0, alpha=scale)
        by_row = scores.view(heads, group, count, seen)
        if mask is not None:
            by_row += mask[start:stop, :seen]
        if causal:
            by_row[..., seen - count :].masked_fill_(later[:count, :count], float("-inf"))
        yield _Block(slice(start, stop), seen, block, torch.softmax(scores, dim=-1))


class _BlockAttention(torch.autograd.Function):
    """Block attention; the backward pass computes the probabilities again."""

    @staticmethod
    def forward(
        ctx: Context,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        """Compute the output; see `block_attention`."""
        ctx.save_for_backward(query, key, value)
        ctx.mask, ctx.causal, ctx.scale = mask, causal, scale
        keys, values = key[0], value[0]
        grouped = _by_key_head(query, len(keys))
        out = query.new_empty(*grouped.shape[:3], values.shape[2])
        for block in _blocks(grouped, keys, mask, causal, scale):
            part = torch.bmm(block.weights, values[:, : block.keys])
            out[:, :, block.rows] = part.view(*out.shape[:2], -1, out.shape[3])
        return out.flatten(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradients of queries, keys and values; those of keys and values are summed in float32."""
        query, key, value = ctx.saved_tensors
        keys, values = key[0], value[0]
        grouped, grad_out = (_by_key_head(states, len(keys)) for states in (query, grad))
        grad_query = torch.empty_like(grouped)
        grad_keys, grad_values = (torch.zeros_like(states, dtype=torch.float32) for states in (keys, values))
        for block in _blocks(grouped, keys, ctx.mask, ctx.causal, ctx.scale):
            seen, weights = slice(block.keys), block.weights
            grad_block = grad_out[:, :, block.rows].reshape(len(keys), -1, values.shape[2])
            grad_values[:, seen] += torch.bmm(weights.mT, grad_block)
            grad_weights = torch.bmm(grad_block, values[:, seen].mT)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_keys[:, seen] += torch.bmm(grad_scores.mT, block.query) * ctx.scale
            part = torch.bmm(grad_scores, keys[:, seen]) * ctx.scale
            grad_query[:, :, block.rows] = part.view(*grad_query.shape[:2], -1, grad_query.shape[3])
        return (
            grad_query.flatten(0, 1)[None],
            grad_keys.to(key.dtype)[None],
            grad_values.to(value.dtype)[None],
            None,
            None,
            None,
        )
