"""Attention over a pack, as transformers calls it: registered under a name, for the duration of one forward pass.

Transformers builds no mask for a name that it doesn't know; who sees whom comes from the `ForestAttention` that is
active (in a context variable, so nothing outlives the `with` block or reaches another thread).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from cst_bench.capabilities.likelihoods.kernels import Kernel, KernelName, make_kernel
from cst_bench.capabilities.likelihoods.prefix_packing import Pack

NAME = "cst_forest"
"""What our attention is called among transformers' attention functions."""

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [1, key heads, keys, size]."""

_HARMLESS = {
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "max_length_k",
    "max_length_q",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "position_ids",
    "return_dict",
    "token_type_ids",
    "use_cache",
}
"""What models hand on to attention and no attention function uses."""


class ForestAttention:
    """What the layers of one forward pass over a pack need, and what is learnt from their calls."""

    def __init__(self, pack: Pack, kernel: KernelName, device: torch.device, kept: list[KeysValues]) -> None:
        """
        Args:
            pack: Its rows are what the model is given.
            kernel: How to compute it.
            device: Where the pack's index tensors go.
            kept: Per layer, what an earlier pack left; empty if `pack.kept` is 0.
        """
        self._pack = pack
        self._before = kept
        self._kernel: Kernel = make_kernel(kernel, pack, device)
        self.kept: list[KeysValues] = []
        """Per layer, the keys and values that the next pack needs."""
        self.windows: list[int | None] = []
        """Per call, the sliding window."""
        self.unsupported: str | None = None
        """What a layer asked for that can't be done."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Attention of one layer.

        Args:
            query: [1, heads, rows, size].
            key: [1, key heads, rows, size].
            value: As `key`.
            scale: Of the dot products; by default size to the power -1/2.
            window: How many positions back each row sees, itself included.

        Returns:
            [1, heads, rows, size].
        """
        layer = len(self.windows)
        self.windows.append(window)
        if self._pack.kept:
            before = self._before[layer]
            key = torch.cat([before[0].to(key.device), key], dim=2)
            value = torch.cat([before[1].to(value.device), value], dim=2)
        start, stop = self._pack.keep
        if stop > start:
            self.kept.append((key[:, :, start:stop].clone(), value[:, :, start:stop].clone()))
        return self._kernel(query, key, value, scale, window)


_active: ContextVar[ForestAttention | None] = ContextVar("cst_forest_attention", default=None)


@contextmanager
def active(attention: ForestAttention) -> Iterator[None]:
    """Lets the layers of a model whose attention is `NAME` use this, in this thread."""
    token = _active.set(attention)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def attention_swapped(model: Any) -> Iterator[None]:
    """Gives a model our attention, and then back what it had."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    for config in list(configs.values()):
        for name in config.sub_configs:
            if getattr(config, name, None) is not None:
                configs.setdefault(id(getattr(config, name)), getattr(config, name))
    before = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def forest_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls in each layer: queries [1, heads, rows, size] → [1, rows, heads, size]."""
    attention = _active.get()
    if attention is None:
        raise RuntimeError(f"attention {NAME!r} works only inside a scoring pass")
    extra = {name for name, given in rest.items() if given is not None and given is not False}
    extra -= _HARMLESS | {"is_causal"}
    if attention_mask is not None:
        extra.add("attention_mask")
    if dropout:
        extra.add("dropout")
    if rest.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        extra.add("is_causal=False")
    if extra and attention.unsupported is None:
        attention.unsupported = f"its attention uses {', '.join(sorted(extra))}"
    result = attention(query, key, value, scaling, sliding_window)
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, forest_attention)
