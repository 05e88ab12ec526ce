"""Reasons why packed scoring is not exact for a model: from its config, or from what its layers ask for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from cst_bench.capabilities.likelihoods.prefix_attention import ForestAttention
from cst_bench.checkpoint.inspection import (
    base_model,
    has_prompt_learning,
    irreplaceable_attention,
    layer_count,
    sharded,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unsupported_model(model: PreTrainedModel) -> str | None:
    """Return why a model is not scored packed, as far as is known before it runs; None if nothing speaks against it."""
    base = base_model(model)
    if base.config.is_encoder_decoder:
        return "it is an encoder-decoder model"
    if getattr(base, "is_quantized", False) or getattr(base.config, "quantization_config", None) is not None:
        return "its weights are quantized"
    if sharded(model):  # budgets, and so passes, depend on each process's memory
        return "its weights are sharded over processes"
    if has_prompt_learning(model):
        return "its adapter puts tokens of its own before the input"
    if (reason := irreplaceable_attention(base)) is not None:
        return reason
    missing = {"position_ids", "logits_to_keep"} - set(inspect.signature(base.forward).parameters)
    if missing:
        return f"its forward takes no {' and no '.join(sorted(missing))}"
    return None


def unsupported_calls(model: PreTrainedModel, attention: ForestAttention) -> str | None:
    """Return why a model cannot be scored packed, judged by its layers' calls in one pass; None if it can."""
    config = base_model(model).config.get_text_config()
    if attention.unsupported is not None:
        return attention.unsupported
    calls, layers = len(attention.windows), layer_count(model)
    if calls != layers:
        return f"{calls} of its {layers} layers call the registered attention"
    windowed = sum(window is not None for window in attention.windows)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        expected = list(kinds).count("sliding_attention")
    else:
        expected = layers if getattr(config, "sliding_window", None) is not None else 0
    if windowed != expected:
        return f"{windowed} of its {expected} sliding layers tell attention their window"
    return None
