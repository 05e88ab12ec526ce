"""Number of tokens of one forward pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cst_bench.capabilities.likelihoods.kernels import KernelName
from cst_bench.capabilities.likelihoods.planning import Group, plan_tokens
from cst_bench.checkpoint.inspection import activation_bytes, free_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOFTMAX_ROWS = 512
"""Rows of logits that are normalised at a time, to limit the memory of their fp32 copies."""

_MOST = {"cpu": 2048, "cuda": 16384}
"""More gains nothing: the processor is busy, and on a CPU the activations leave its cache."""
_MOST_MASKED = 4096
"""The same for a mask of the whole pack, where the work grows with the square of the tokens."""
_LEAST = 128
_MEMORY_SHARE = 0.5
"""Largest share of the free memory for a pass."""
_COPIES = 2
"""Copies of the logits at a time: many models scale or cap them."""
_PAIR_BYTES: dict[KernelName, int] = {"documents": 0, "flex": 6, "masked": 8}
"""Bytes of each pair of a row and a key while a mask is made: FlexAttention's blocks come from a mask of all pairs."""
_SOFTMAX_BYTES = 12
"""Bytes of a logit while it is normalised: in fp32, with its softmax and a copy."""


def scored_share(groups: Sequence[Group]) -> float:
    """Return the share of the tokens of planned documents whose logits are needed."""
    scored = sum(1 + len(document.trie.tokens) for group in groups for document in group.documents)
    return scored / max(1, plan_tokens(groups))


def pass_bytes(model: PreTrainedModel, tokens: int, share: float) -> int:
    """Estimate the bytes of a forward pass, without the weights and a mask.

    Args:
        model: Model that is loaded.
        tokens: Tokens of the pass.
        share: Share of the tokens whose logits are needed.
    """
    return round(tokens * _token_bytes(model, share)) + _softmax_bytes(model)


def token_budget(model: PreTrainedModel, device: torch.device, kernel: KernelName, share: float) -> int:
    """Estimate how many tokens of a forward pass fit in the free memory of the model's devices.

    Args:
        model: Model that is loaded.
        device: Device of its inputs.
        kernel: Kernel of its attention.
        share: Share of the tokens whose logits are needed.
    """
    most = min(_MOST.get(device.type, 4096), _MOST_MASKED if kernel == "masked" else sys.maxsize)
    devices = {device, *(weight.device for weight in model.parameters() if weight.device.type == device.type)}
    room = min(map(free_memory, devices)) * _MEMORY_SHARE - _softmax_bytes(model)
    return max(_LEAST, min(int(room / (_token_bytes(model, share) + _PAIR_BYTES[kernel] * most)), most))


def _token_bytes(model: PreTrainedModel, share: float) -> float:
    logit: int = model.dtype.itemsize * model.config.get_text_config().vocab_size
    return activation_bytes(model) + logit * _COPIES * share


def _softmax_bytes(model: PreTrainedModel) -> int:
    vocabulary: int = model.config.get_text_config().vocab_size
    return SOFTMAX_ROWS * vocabulary * _SOFTMAX_BYTES
