"""Facts about a loaded model and its device, in one place: memory, adapters, layers and lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_PLAIN_ATTENTION = {"full_attention", "sliding_attention"}
_MEMORY_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory")


def free_memory(device: torch.device) -> int:
    """Return the free memory of this device in bytes, with what PyTorch holds of a GPU without using it."""
    import psutil
    import torch

    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(psutil.virtual_memory().available)


def empty_cache(device: torch.device) -> None:
    """Return memory that PyTorch caches to a GPU; do nothing on other devices."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran short. On a CPU it is a plain `RuntimeError`."""
    import torch

    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in text for words in _MEMORY_MESSAGES)


def base_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the `transformers` model inside a `peft` adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_prompt_learning(model: PreTrainedModel) -> bool:
    """Return whether an adapter of `peft` puts learned tokens before each input."""
    return any(adapter.is_prompt_learning for adapter in getattr(model, "peft_config", {}).values())


def sharded(model: PreTrainedModel) -> bool:
    """Return whether processes hold parts of the same weights: tensor parallelism, FSDP or DeepSpeed ZeRO 3."""
    import torch.distributed

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    return any(isinstance(module, FullyShardedDataParallel) for module in model.modules()) or any(
        isinstance(weight, DTensor) or hasattr(weight, "ds_id") for weight in model.parameters()
    )


def layer_count(model: PreTrainedModel) -> int:
    """Return the number of decoder layers."""
    return int(base_model(model).config.get_text_config().num_hidden_layers)


def activation_bytes(model: PreTrainedModel) -> int:
    """Estimate the bytes of activations that one token takes in a forward pass, logits excluded."""
    config = model.config.get_text_config()
    hidden = getattr(config, "hidden_size", 4096)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    return int(model.dtype.itemsize * (12 * hidden + 4 * inner))


def plain_attention_only(config: PreTrainedConfig) -> bool:
    """Return whether every layer of this text config has full or sliding attention, as far as the config says."""
    layers = set(getattr(config, "layer_types", None) or ())
    return not getattr(config, "attention_chunk_size", None) and layers <= _PLAIN_ATTENTION


def irreplaceable_attention(model: PreTrainedModel) -> str | None:
    """Return why another attention implementation would not give a model's numbers; None if nothing is known."""
    config = model.config.get_text_config()
    if not plain_attention_only(config):
        return "it has layers other than full and sliding attention"
    if not model._can_set_attn_implementation():
        return "its attention implementation cannot be replaced"
    return None


def context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens of an input: the config's positions, or else the tokenizer's limit, at most 2^20."""
    text = config.get_text_config()
    lengths = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return int(min([length for length in lengths if length] or [min(tokenizer.model_max_length, 2**20)]))


def batch_invariant_length(config: PreTrainedConfig) -> int | None:
    """Return the longest input whose result does not depend on its batch; None if there is no such limit.

    Dynamic and "longrope" rotary embeddings change for the whole batch when its longest row exceeds the length that
    the model was first trained with.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    lengths = []
    for settings in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        kind = str(settings.get("rope_type", settings.get("type", "")))
        if "dynamic" in kind or kind == "longrope":
            original = settings.get("original_max_position_embeddings")
            lengths.append(int(original or config.max_position_embeddings))
    return min(lengths, default=None)
