"""What packed scoring can't do exactly: known from the config, or seen in what the layers ask for."""

from __future__ import annotations

import inspect
from typing import Any

from cst_bench.capabilities.likelihoods.prefix_attention import ForestAttention

_LAYERS = {"full_attention", "sliding_attention"}


def base_of(model: Any) -> Any:
    """The `transformers` model, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unsupported_model(model: Any) -> str | None:
    """Why a model can't be scored packed, as far as it tells before it runs; None if nothing is known against it."""
    base = base_of(model)
    config = base.config.get_text_config()
    if base.config.is_encoder_decoder:
        return "it is an encoder-decoder model"
    if getattr(base, "is_quantized", False) or getattr(base.config, "quantization_config", None) is not None:
        return "its weights are quantized"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "its adapter puts tokens of its own before the input"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention has a soft-cap"
    if getattr(config, "attention_chunk_size", None) or not set(getattr(config, "layer_types", None) or ()) <= _LAYERS:
        return "it has layers other than full and sliding attention"
    if not base._can_set_attn_implementation():
        return "its attention isn't exchangeable"
    missing = {"position_ids", "logits_to_keep"} - set(inspect.signature(base.forward).parameters)
    if missing:
        return f"its forward takes no {' and no '.join(sorted(missing))}"
    return None


def unsupported_calls(model: Any, attention: ForestAttention) -> str | None:
    """Why a model can't be scored packed, as its layers' calls in one pass tell; None if all is well."""
    config = base_of(model).config.get_text_config()
    if attention.unsupported is not None:
        return attention.unsupported
    calls, layers = len(attention.windows), config.num_hidden_layers
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


def exact_length(model: Any) -> int | None:
    """The longest input whose result doesn't depend on what it is batched with (dynamic rope); None if all."""
    config = base_of(model).config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    lengths = []
    for settings in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        kind = str(settings.get("rope_type", settings.get("type", "")))
        if "dynamic" in kind or kind == "longrope":
            original = settings.get("original_max_position_embeddings")
            lengths.append(int(original or config.max_position_embeddings))
    return min(lengths, default=None)
