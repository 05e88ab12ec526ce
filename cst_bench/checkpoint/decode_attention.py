"""Attention of one new token per row on a CPU: two batched products, over keys that are stored transposed.

SDPA's CPU kernel computes each row and head in a call of its own, which for one query takes most of a step: 1.4 times
these products in fp32, and 2.7 times in bf16. Transformers calls our attention by a name that parts of the model have
during a step; with more than one query, and for what it does not support, it is SDPA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

_NAME = "cst_decode"
"""Name of our attention among transformers' attention functions."""


def configs_with_sdpa(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Return the configs of the model's parts whose attention `decode_attention` replaces: none but on a CPU.

    Models that do not call attention by its name in the config have other code for each name, and are left as they are.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if model.device.type != "cpu" or not all(part._can_set_attn_implementation() for part in parts):
        return []
    configs = {id(part.config): part.config for part in parts}
    return [config for config in configs.values() if config._attn_implementation == "sdpa"]


@contextmanager
def decode_attention(configs: Sequence[PreTrainedConfig]) -> Iterator[None]:
    """Use our attention in the parts with these configs, instead of SDPA."""
    for config in configs:
        config._attn_implementation_internal = _NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation_internal = "sdpa"


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Compute what `sdpa_attention_forward` does.

    Args:
        module: Attention layer.
        query: [rows, heads, queries, size].
        key: [rows, key heads, columns, size].
        value: Like `key`; its size may differ.
        attention_mask: Added to the dot products, [rows, 1, queries, columns].
        dropout: 0 outside training.
        scaling: Factor of the dot products; None for size to the power -1/2.
        settings: Other arguments of SDPA.

    Returns:
        [rows, queries, heads, value size], and no weights.
    """
    rows, heads, queries, size = query.shape
    special = any(settings.get(name) is not None for name in ("softcap", "position_bias"))
    if special or queries > 1 or attention_mask is None or attention_mask.shape[1] > 1:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
    query = query.reshape(rows, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
    if key.dtype != torch.float32 and key.stride(2) == 1:
        key, value, attention_mask = _whole_stores(key, value, attention_mask)
    weights = (query @ key.mT).add_(attention_mask).softmax(-1)  # heads that share keys are rows of one product
    return (weights @ value).reshape(rows, 1, heads, value.shape[3]), None


def _whole_stores(key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys, values and mask with all columns of the cache's stores, those outside of the window masked.

    In half precision torch copies an operand that is a part of a larger store, and the copy takes longer than the
    product. `key` and `value` are the windows of a transposed `RowLayer`, whose stores hold finite numbers everywhere.
    """
    columns, size = key.stride(3), value.shape[3]
    first = int(key.storage_offset()) % columns
    whole = (*key.shape[:2], columns)
    key = key.as_strided((*whole, key.shape[3]), key.stride(), key.storage_offset() - first)
    value = value.as_strided((*whole, size), value.stride(), value.storage_offset() - first * size)
    padding = [first, columns - first - mask.shape[3]]
    return key, value, torch.nn.functional.pad(mask, padding, value=torch.finfo(mask.dtype).min)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)
