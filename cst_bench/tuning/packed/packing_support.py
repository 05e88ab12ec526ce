"""Models and settings for which packed training gives TRL's numbers: known beforehand, or found on the longest rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate.utils import parse_flag_from_env

from cst_bench.checkpoint.inspection import batch_invariant_length, irreplaceable_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FACTOR = 4
"""Most that packed log-probabilities may differ by, in multiples of TRL's own difference between batch sizes.

It was 0.4 to 1.5 of them, for four architectures of 16 to 24 layers in float32, bfloat16, float16 and under autocast.
"""
_STATES = 4
"""Rounding of a token's log-probability that comes from the hidden states, in multiples of their type's epsilon."""
_HEAD = 1e-5
"""Rounding that comes from TRL's head, which is in float32 whatever the type of the model."""
_SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
"""Ways of sharding that `accelerate launch` sets by `ACCELERATE_USE_…`, from its options or its config file."""


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
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention has a soft-cap"
    if (reason := irreplaceable_attention(model)) is not None:
        return reason
    if hasattr(config, "output_router_logits") and trl.get("router_aux_loss_coef") != 0:
        return "its experts' load-balancing loss counts padded rows (trl.router_aux_loss_coef: 0 leaves it out)"
    limit = batch_invariant_length(config)
    if limit is not None and longest > limit:
        return "its positions depend on the longest sequence of a batch"
    if trl.get("fsdp") or trl.get("deepspeed") or any(parse_flag_from_env(f"ACCELERATE_USE_{n}") for n in _SHARDING):
        return "its weights are sharded"
    if trl.get("truncation_mode", "keep_start") != "keep_start":
        return "trl.truncation_mode cuts chosen and rejected at different places of the prompt"
    if lora and lora.get("alora_invocation_tokens"):
        return "its adapter looks for its invocation tokens"
    return None


def difference(
    ours: Sequence[torch.Tensor],
    theirs: Sequence[torch.Tensor],
    alone: Sequence[torch.Tensor],
    dtype: torch.dtype,
) -> str | None:
    """Return how packed log-probabilities differ from TRL's in some sequence beyond rounding; None if they do not.

    What is rounding is measured by how TRL's own differ between batch sizes, but is at least that of the types: where
    shapes are the same, TRL's may be equal.

    Args:
        ours: Log-probabilities of each sequence's response, [tokens], by the packed forward pass.
        theirs: The same by TRL's forward pass over all sequences together.
        alone: The same by TRL's forward pass over one pair at a time, with other padding.
        dtype: Type of the hidden states.
    """
    own = max(map(_deviation, theirs, alone))
    allowed = max(_FACTOR * own, _STATES * torch.finfo(dtype).eps, _HEAD)
    worst = max(map(_deviation, ours, theirs))
    if worst <= allowed:
        return None
    return f"log-probabilities of its longest rows differ by {worst:.1e} a token, TRL's own by {own:.1e}"


def _deviation(values: torch.Tensor, others: torch.Tensor) -> float:
    """Return the deviation of a token in nats: root mean square, or that which the sum shows if it is larger.

    The sum of n independent deviations is sqrt(n) of them; deviations in one direction have a larger one.
    """
    differences = values.double() - others.double()
    count = max(1, len(differences))
    deviations = torch.stack([differences.square().sum(), differences.sum().square()])
    return float((deviations.max() / count).sqrt().nan_to_num(nan=torch.inf))
