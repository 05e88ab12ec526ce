"""Attention over a pack of pairs, in the form that transformers calls.

The pack is passed with the forward call's keyword arguments and not in a variable, since gradient checkpointing calls
the layers again in the backward pass, on another thread.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cst_bench.checkpoint.attention_kernels import grouped_attention, many_lengths
from cst_bench.checkpoint.block_attention import block_attention, suits_blocks
from cst_bench.tuning.packed.pair_packing import PairPack

NAME = "cst_pairs"
"""Name of this attention among transformers' attention functions."""

_IGNORED = {
    "cache",
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "position_ids",
    "return_dict",
    "use_cache",
}
"""Arguments that models pass on to attention functions, none of which uses them."""


class UnsupportedAttentionError(Exception):
    """A layer needs something that attention over a pack does not support."""


def pair_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cst_pack: PairPack | None = None,
    **rest: object,
) -> tuple[torch.Tensor, None]:
    """Compute the attention of one layer; without a pack, by plain SDPA.

    Args:
        module: The layer.
        query: [1, heads, rows, size]
        key: [1, key heads, rows, size]
        value: [1, key heads, rows, size]
        attention_mask: Mask of a call without a pack.
        scaling: Factor of the products of queries and keys.
        dropout: Probability.
        sliding_window: Number of rows that a row attends to, itself included; None for all.
        cst_pack: The pack.
        rest: Further arguments of the model.

    Returns:
        Attention output [1, rows, heads, size], and no weights.

    Raises:
        UnsupportedAttentionError: the layer passes an argument that changes attention in another way.
    """
    if cst_pack is None:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return result
    extra = {name for name, argument in rest.items() if argument is not None and argument is not False} - _IGNORED
    if extra:
        raise UnsupportedAttentionError(f"its attention uses {', '.join(sorted(extra))}")
    cst_pack.calls += 1
    sizes = [size for pair in cst_pack.pairs for size in (pair.prompt + pair.chosen, pair.rejected)]
    queries, keys, values = (torch.split(states, sizes, dim=2) for states in (query, key, value))

    def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        length = queries.shape[2]
        window = sliding_window if sliding_window is not None and sliding_window < length else None
        mask = None if window is None else _mask(cst_pack, length, window, queries.device)
        return grouped_attention(queries, keys, values, mask, dropout=dropout, causal=mask is None, scale=scaling)

    parts = []
    with many_lengths():
        for index, pair in enumerate(cst_pack.pairs):
            first, second = 2 * index, 2 * index + 1
            parts.append(attend(queries[first], keys[first], values[first]))
            if pair.rejected:  # SDPA takes the prompt's rows again: that is faster than a mask
                whole = [
                    torch.cat([states[first][:, :, : pair.prompt], states[second]], dim=2)
                    for states in (queries, keys, values)
                ]
                if sliding_window is None and not dropout and suits_blocks(query):
                    parts.append(block_attention(queries[second], whole[1], whole[2], causal=True, scale=scaling))
                else:
                    parts.append(attend(whole[0], whole[1], whole[2])[:, :, pair.prompt :])
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _mask(pack: PairPack, length: int, window: int, device: torch.device) -> torch.Tensor:
    """Return the mask [length, length] of a sequence longer than the sliding window."""
    mask = pack.masks.get((length, window))
    if mask is None:
        row = torch.arange(length, device=device)[:, None]
        column = torch.arange(length, device=device)[None]
        mask = pack.masks[length, window] = (column <= row) & (column > row - window)
    return mask


AttentionInterface.register(NAME, pair_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for calls without a pack
