"""Attention over a pack, as transformers calls it: registered under a name, and active for one forward pass.

Transformers builds no mask for a name that it does not know; the active `ForestAttention` decides what each row sees
(in a context variable, so that nothing outlives the `with` block or reaches another thread).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from transformers import AttentionInterface

from cst_bench.capabilities.likelihoods.kernels import Kernel, KernelName, LayerSettings, make_kernel
from cst_bench.capabilities.likelihoods.prefix_packing import PrefixPack

NAME = "cst_forest"
"""Name of our attention among transformers' attention functions."""

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [1, key heads, keys, size]."""

_HARMLESS = {
    "cache",
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
"""Arguments that models pass to attention and that no attention function uses."""


class ForestAttention:
    """Attention state of one forward pass over a pack, and a record of the layers' calls."""

    def __init__(self, pack: PrefixPack, kernel: KernelName, device: torch.device, kept: list[KeysValues]) -> None:
        """Prepare one pass.

        Args:
            pack: Its rows are the model's input.
            kernel: Way to compute the attention.
            device: Device of the pack's index tensors.
            kept: For each layer, keys and values of an earlier pack; empty if `pack.kept` is 0.
        """
        self._pack = pack
        self._before = kept
        self._kernel: Kernel = make_kernel(kernel, pack, device)
        self.kept: list[KeysValues] = []
        """For each layer, the keys and values that the next pack needs."""
        self.windows: list[int | None] = []
        """For each call, the sliding window."""
        self.unsupported: str | None = None
        """Unsupported request of a layer."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: LayerSettings
    ) -> torch.Tensor:
        """Compute the attention of one layer.

        Args:
            query: [1, heads, rows, size].
            key: [1, key heads, rows, size].
            value: Like `key`.
            settings: Scale, window, soft-cap and sinks of the layer.

        Returns:
            [1, heads, rows, size].
        """
        layer = len(self.windows)
        self.windows.append(settings.window)
        if self._pack.kept:
            before = self._before[layer]
            key = torch.cat([before[0].to(key.device), key], dim=2)
            value = torch.cat([before[1].to(value.device), value], dim=2)
        start, stop = self._pack.keep
        if stop > start:
            self.kept.append((key[:, :, start:stop].clone(), value[:, :, start:stop].clone()))
        return self._kernel(query, key, value, settings)


_active: ContextVar[ForestAttention | None] = ContextVar("cst_forest_attention", default=None)


@contextmanager
def active(attention: ForestAttention) -> Iterator[None]:
    """Make this the attention of models whose attention is `NAME`, in this thread."""
    token = _active.set(attention)
    try:
        yield
    finally:
        _active.reset(token)


def forest_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **rest: object,
) -> tuple[torch.Tensor, None]:
    """Compute a layer's attention for transformers: queries [1, heads, rows, size] → [1, rows, heads, size]."""
    attention = _active.get()
    if attention is None:
        raise RuntimeError(f"attention {NAME!r} works only inside a scoring pass")
    extra = {name for name, value in rest.items() if value is not None and value is not False}
    extra -= _HARMLESS | {"is_causal"}
    if attention_mask is not None:
        extra.add("attention_mask")
    if dropout:
        extra.add("dropout")
    if rest.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        extra.add("is_causal=False")
    if extra and attention.unsupported is None:
        attention.unsupported = f"its attention uses {', '.join(sorted(extra))}"
    result = attention(query, key, value, LayerSettings(scaling, sliding_window, softcap, s_aux))
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, forest_attention)
