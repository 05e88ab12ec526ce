"""Merge an adapter of PEFT into its base on loading, so that no layer multiplies twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

MERGE_DTYPE = "float32"
"""Data type of the sum of a base weight and its update; the result is rounded once, to the dtype of the base."""
_MERGEABLE = ("LORA", "LOHA", "LOKR", "IA3")
"""PEFT types whose update is a change of weights."""
_EMBEDDINGS = ("embed", "wte", "lm_head")
"""Parts of the names of embeddings and heads."""


def mergeable(adapter: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Return whether an adapter can be merged into its base, as far as the configs of both say.

    Quantized weights would be rounded again; with tied embeddings, a merge into one of them would change the other.
    """
    if adapter.get("peft_type") not in _MERGEABLE or adapter.get("alora_invocation_tokens"):
        return False
    text_config = base.get("text_config") or {}
    if base.get("quantization_config") or text_config.get("quantization_config"):
        return False
    targets = json.dumps([adapter.get("target_modules"), adapter.get("trainable_token_indices")])
    # transformers ties embeddings unless the config says otherwise
    tied = base.get("tie_word_embeddings", text_config.get("tie_word_embeddings", True))
    return not (tied and any(name in targets for name in _EMBEDDINGS))


def merge_adapter(model: PeftModel, folder: Path) -> PreTrainedModel:
    """Merge the active adapter into its base, layer by layer in float32, and return the base.

    Raises:
        UserError: PEFT cannot merge the adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    tied = model.get_base_model().config.get_text_config().tie_word_embeddings
    try:
        if tied and any(isinstance(layer, BaseTunerLayer) for layer in embeddings):
            raise ValueError("it changes only one of the tied embeddings")
        model.base_model._check_merge_allowed()
        for layer in [module for module in model.modules() if isinstance(module, BaseTunerLayer)]:
            with _in_float32(layer.get_base_layer()):
                layer.merge(safe_merge=True)
    except (ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: could not merge this adapter: {reason}; load it with --no-merge") from error
    merged: PreTrainedModel = model.unload()
    if tied and merged.get_input_embeddings().weight is not merged.get_output_embeddings().weight:
        merged.config.get_text_config().tie_word_embeddings = False  # or saving would drop one of them
    return merged


@contextmanager
def _in_float32(layer: nn.Module) -> Iterator[None]:
    """Hold a layer's floating-point parameters in float32, then cast them back to their own dtype."""
    own = {parameter: parameter.dtype for parameter in layer.parameters() if parameter.is_floating_point()}
    for parameter in own:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in own.items():
            parameter.data = parameter.data.to(dtype)
