"""Number of tokens of one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cst_bench.checkpoint.inspection import activation_bytes, free_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST = {"cpu": 2048, "cuda": 16384}
"""More gains nothing: the processor is busy, and on a CPU the activations leave its cache."""
_LEAST = 128
_MEMORY_SHARE = 0.5
"""Largest share of the free memory for a pass."""
_SCORED_SHARE = 0.25
"""Assumed share of tokens whose logits are needed; if there are more and memory runs out, the budget is halved."""


def token_budget(model: PreTrainedModel, device: torch.device) -> int:
    """Estimate how many tokens of a forward pass fit in the free memory."""
    config = model.config.get_text_config()
    # the head's own logits, and their softmax in fp32 twice
    logits = config.vocab_size * (model.dtype.itemsize + 8) * _SCORED_SHARE
    fit = int(free_memory(device) * _MEMORY_SHARE / (activation_bytes(model) + logits))
    return max(_LEAST, min(fit, _MOST.get(device.type, 4096)))
