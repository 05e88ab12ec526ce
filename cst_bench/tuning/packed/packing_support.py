"""Models and settings for which packed training gives TRL's numbers: known beforehand, or found on the longest rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from cst_bench.checkpoint.inspection import batch_invariant_length, irreplaceable_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Mean difference of a token's log-probability between two exact ways to compute it."""
_TOLERANCE_HALF = 0.02
"""The same in bfloat16 and float16."""


class CannotPack(Exception):
    """Packed training would not give TRL's numbers; the message is the reason."""


def unsupported(
    model: PreTrainedModel, trl: Mapping[str, object], lora: Mapping[str, object] | None, longest: int
) -> str | None:
    """Return why a model or a setting does not allow packed training, as far as is known beforehand; None otherwise.

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
    if (reason := irreplaceable_attention(model)) is not None:
        return reason
    if hasattr(config, "output_router_logits") and trl.get("router_aux_loss_coef") != 0:
        return "its experts' load-balancing loss counts padded rows (trl.router_aux_loss_coef: 0 leaves it out)"
    limit = batch_invariant_length(config)
    if limit is not None and longest > limit:
        return "its positions depend on the longest sequence of a batch"
    if trl.get("fsdp") or trl.get("deepspeed"):
        return "its weights are sharded"
    if trl.get("truncation_mode", "keep_start") != "keep_start":
        return "trl.truncation_mode cuts chosen and rejected at different places of the prompt"
    if lora and lora.get("alora_invocation_tokens"):
        return "its adapter looks for its invocation tokens"
    return None


def difference(ours: torch.Tensor, theirs: torch.Tensor, *, tokens: int, dtype: torch.dtype) -> str | None:
    """Return how summed log-probabilities differ beyond rounding; None if they do not.

    Args:
        ours: Sums over all response tokens, [2, rows].
        theirs: The same, computed another way.
        tokens: Number of response tokens.
        dtype: Type they were computed in.
    """
    mean = float((ours - theirs).abs().sum()) / tokens
    if mean <= _TOLERANCE.get(dtype, _TOLERANCE_HALF):
        return None
    return f"log-probabilities of its longest rows differ by {mean:.1e} a token"
