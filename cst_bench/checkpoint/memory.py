"""Estimate the memory that a run needs, on the device of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cst_bench.checkpoint.decoding import prefill_tokens
from cst_bench.checkpoint.generation import cache_bytes
from cst_bench.checkpoint.inspection import activation_bytes, free_memory

if TYPE_CHECKING:
    from cst_bench.checkpoint.loading import Checkpoint

_LOGIT_COPIES = 3
"""Copies of the logits while a token is chosen."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a run needs, and those that it can have."""

    kind: Literal["memory", "GPU memory"]
    needed: int
    """With the weights, and on a CPU with what the process holds besides."""
    free: int
    """Free bytes, and those that the process holds already."""


def memory_need(checkpoint: Checkpoint, *, decoded: int, rows: int, scoring: int) -> MemoryNeed:
    """Estimate the memory from what the process holds now, with its libraries imported and the weights loaded.

    Args:
        checkpoint: The loaded model.
        decoded: Most tokens in the key-value cache.
        rows: Most rows decoded together; 0 if nothing is.
        scoring: Bytes of the largest pass of scoring.
    """
    import psutil
    import torch

    model, device = checkpoint.model, checkpoint.device
    on_gpu = device.type == "cuda"
    held = torch.cuda.memory_allocated(device) if on_gpu else int(psutil.Process().memory_info().rss)
    decoding = 0
    if rows:
        logits = rows * model.config.get_text_config().vocab_size * model.dtype.itemsize * _LOGIT_COPIES
        reading = prefill_tokens(device.type) * activation_bytes(model)
        decoding = decoded * cache_bytes(checkpoint) + logits + reading
    return MemoryNeed(
        "GPU memory" if on_gpu else "memory",
        held + max(decoding, scoring),
        free_memory(device) + held,
    )
