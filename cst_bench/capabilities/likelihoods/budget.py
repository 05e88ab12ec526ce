"""How many tokens one forward pass may have."""

from __future__ import annotations

from typing import Any

import psutil
import torch

_MOST = {"cpu": 2048, "cuda": 16384}
"""More gains nothing: the processor is busy, and on a CPU the activations leave its cache."""
_LEAST = 128
_MEMORY_SHARE = 0.5
"""Share of the free memory that a pass may take."""
_SCORED_SHARE = 0.25
"""Share of the tokens whose logits are needed; where there are more, and memory ends, the budget is halved."""


def token_budget(model: Any, device: torch.device) -> int:
    """Tokens of a forward pass that fit in the memory that is free now."""
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    size = model.dtype.itemsize
    activations = size * (12 * hidden + 4 * inner)
    logits = config.vocab_size * (size + 8) * _SCORED_SHARE  # the head's own, and their softmax in fp32 twice
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    fit = int(free * _MEMORY_SHARE / (activations + logits))
    return max(_LEAST, min(fit, _MOST.get(device.type, 4096)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran short, on any device."""
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
