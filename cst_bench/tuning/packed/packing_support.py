"""For which models and settings packed training gives TRL's numbers: known beforehand, or seen on the longest rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_LAYERS = {"full_attention", "sliding_attention"}
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Mean difference of a token's log-probability between two exact ways to compute it."""
_TOLERANCE_HALF = 0.02
"""The same in bfloat16 and float16."""


class CannotPack(Exception):
    """Packed training would not give TRL's numbers; the text says why."""


def base_of(model: Any) -> Any:
    """The `transformers` model, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unsupported(model: Any, trl: Mapping[str, Any], lora: Mapping[str, Any] | None, longest: int) -> str | None:
    """Why a model or a setting can't be trained packed, as far as is known beforehand; None if nothing is.

    Args:
        model: The base.
        trl: The recipe's options of `DPOConfig`.
        lora: The recipe's options of `LoraConfig`; None for full fine-tuning.
        longest: Tokens of the longest sequence.
    """
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return "it is an encoder-decoder model"
    if config is not model.config:
        return "it is a multimodal model"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention has a soft-cap"
    if getattr(config, "attention_chunk_size", None) or not set(getattr(config, "layer_types", None) or ()) <= _LAYERS:
        return "it has layers other than full and sliding attention"
    if not model._can_set_attn_implementation():
        return "its attention isn't exchangeable"
    if hasattr(config, "output_router_logits") and trl.get("router_aux_loss_coef") != 0:
        return "its experts' load-balancing loss counts padded rows (trl.router_aux_loss_coef: 0 leaves it out)"
    rope = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or "")
    if ("dynamic" in rope or "longrope" in rope) and longest > _original_length(config):
        return "its positions depend on the longest sequence of a batch"
    if trl.get("fsdp") or trl.get("deepspeed"):
        return "its weights are sharded"
    if trl.get("truncation_mode", "keep_start") != "keep_start":
        return "trl.truncation_mode cuts chosen and rejected at different places of the prompt"
    if lora and lora.get("alora_invocation_tokens"):
        return "its adapter looks for its invocation tokens"
    return None


def differs(ours: torch.Tensor, theirs: torch.Tensor, *, tokens: int, dtype: torch.dtype) -> str | None:
    """Whether summed log-probabilities, [2, rows] over so many tokens, differ by more than rounding; None if not."""
    mean = float((ours - theirs).abs().sum()) / tokens
    if mean <= _TOLERANCE.get(dtype, _TOLERANCE_HALF):
        return None
    return f"log-probabilities of its longest rows differ by {mean:.1e} a token"


def _original_length(config: Any) -> int:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
