"""Attention over a pack of pairs, as transformers calls it.

The pack travels with the forward call's keyword arguments and not in a variable, since gradient checkpointing calls
the layers again in the backward pass, on another thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cst_bench.tuning.packed.pair_packing import Pack

NAME = "cst_pairs"
"""What our attention is called among transformers' attention functions."""

_HARMLESS = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "position_ids",
    "return_dict",
    "use_cache",
}
"""What models hand on to attention and no attention function uses."""


class UnsupportedAttentionError(Exception):
    """A layer asks for something that attention over a pack can't do."""


def pair_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cst_pack: Pack | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer: queries [1, heads, rows, size] → [1, rows, heads, size]; without a pack, plain SDPA."""
    if cst_pack is None:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return result
    extra = {name for name, given in rest.items() if given is not None and given is not False} - _HARMLESS
    if extra:
        raise UnsupportedAttentionError(f"its attention uses {', '.join(sorted(extra))}")
    cst_pack.calls += 1
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.device.type != "cpu":  # not all of the GPU's kernels take grouped heads
        repeats = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
        grouped = False
    sizes = [size for pair in cst_pack.pairs for size in (pair.prompt + pair.chosen, pair.rejected)]
    queries, keys, values = (torch.split(each, sizes, dim=2) for each in (query, key, value))

    def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        length = queries.shape[2]
        window = sliding_window if sliding_window is not None and sliding_window < length else None
        mask = None if window is None else _mask(cst_pack, length, window, queries.device)
        return scaled_dot_product_attention(
            queries, keys, values, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )

    parts = []
    for index, pair in enumerate(cst_pack.pairs):
        first, second = 2 * index, 2 * index + 1
        parts.append(attend(queries[first], keys[first], values[first]))
        if pair.rejected:  # with the prompt's rows once more: kernels are quicker at that than at a mask
            whole = [
                torch.cat([states[first][:, :, : pair.prompt], states[second]], dim=2)
                for states in (queries, keys, values)
            ]
            parts.append(attend(whole[0], whole[1], whole[2])[:, :, pair.prompt :])
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _mask(pack: Pack, length: int, window: int, device: torch.device) -> torch.Tensor:
    """Of a sequence longer than the sliding window: what a row sees, [length, length]."""
    found = pack.masks.get((length, window))
    if found is None:
        row = torch.arange(length, device=device)[:, None]
        column = torch.arange(length, device=device)[None]
        found = pack.masks[length, window] = (column <= row) & (column > row - window)
    return found


AttentionInterface.register(NAME, pair_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for calls without a pack
