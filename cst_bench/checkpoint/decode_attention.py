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
    weights = (query @ key.mT).add_(attention_mask).softmax(-1)  # heads that share keys are rows of one product
    return (weights @ value).reshape(rows, 1, heads, value.shape[3]), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)
