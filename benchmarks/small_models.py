"""A small random model of every causal language model in the installed transformers, with adversarial settings.

Windows, chunks and the top-k of indexers are longer than the requests that packed scoring checks itself with, and
shorter than those of the sweep; weights are large, so that errors show in greedy tokens. Settings are put where an
architecture's config has an attribute of that name; `_MORE` has what an architecture needs beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 400
WINDOW = 64
"""Tokens of sliding windows, attention chunks and top-k indexers."""

_MOST_PARAMETERS = 5_000_000
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_SETTINGS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "unpadded_vocab_size": VOCABULARY,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "lru_width"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "intermediate_size_mlp", "dff", "encoder_ffn_dim"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 512),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("attention_chunk_size", "index_topk"), WINDOW),
    "use_sliding_window": True,
    "max_window_layers": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "n_group", "num_expert_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "rotary_dim", "laurel_rank"), 8),
    "hidden_size_per_layer_input": 16,
    **dict.fromkeys(("num_nextn_predict_layers", "num_mtp_layers"), 0),
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "rel_extent": WINDOW,
    "cla_share_factor": 1,
    "enable_moe_block": False,
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "mamba_num_heads", "mamba_n_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 16),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("mamba_expand", "n_mamba_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("mamba_d_conv", "linear_num_value_heads", "linear_num_heads"), 4),
    "mamba_d_ssm": 128,
    **dict.fromkeys(
        ("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "chunk_size", "mamba_chunk_size"), 16
    ),
    "use_mamba_kernels": False,
}
"""Attribute of a config → its small value."""
_PER_LAYER = ("mlp_layer_types", "moe_layers", "no_rope_layers", "indexer_types")
"""Lists of a config with an entry for each layer."""
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
    "factor": 4.0,
}
_MORE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "cpmant": {"dim_head": 16, "dim_ff": 96},
    "dory": {"n_input_layers": 1, "n_output_layers": 1},
    "falcon": {"alibi": True, "multi_query": False, "new_decoder_architecture": False},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
    },
    "gemma4_text": {"num_kv_shared_layers": 0},
    "git": {
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2, "shared_intermediate_size": 32},
    "hrm_text": {"initializer_range": 0.05},  # chaotic with larger weights: its layers run many times
    "inkling2_loop_text": {
        "n_layers_per_attn_res_block": 1,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 2,
        "loop_gate_rank": 8,
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_dt_rank": 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "expand": 2},
    "mistral": {"sliding_window": WINDOW},
    "phi3": {
        "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 256},
        "original_max_position_embeddings": 256,
    },
    "phi4_multimodal": {
        "audio_config": {"hidden_size": 32, "num_blocks": 1, "intermediate_size": 32, "num_attention_heads": 2},
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    },
    "qwen2_moe": {"decoder_sparse_step": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": WINDOW,
        "indexer_compress_ratio": 4,
        "output_gate_type": "sigmoid",
        "ple_embed_dim": 64,
        "hc_lowrank": 8,
        "ngram_vocab_size_base": 100,
        "split_ngram_parts": 2,
        "heads_per_ngram": 2,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"axial_pos_embds": False, "hash_seed": 0},
    "roc_bert": {
        "pronunciation_embed_dim": 32,
        "pronunciation_vocab_size": 10,
        "shape_embed_dim": 32,
        "shape_vocab_size": 10,
    },
    "rwkv": {"attention_hidden_size": 64},
    "xlstm": {"num_heads": 4, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_dt_rank": 4,
        "layer_types": ["linear_attention", "hybrid"] * 2,
        "num_hidden_layers": 4,
    },
    "zamba2": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "attention_head_dim": 32,
        "hybrid_layer_ids": [1, 3],
        "n_mamba_heads": 8,
        "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""Architecture → settings over the common ones."""

_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
_DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon (rope)": ("falcon", {"alibi": False, "multi_query": True}),
    "llama (yarn)": ("llama", {"rope_parameters": _YARN}),
    "llama (dynamic rope)": ("llama", {**_DYNAMIC, "max_position_embeddings": 256}),
    "llama (dynamic rope, crossed)": ("llama", {**_DYNAMIC, "max_position_embeddings": 100}),
    "phi3 (longrope, crossed)": (
        "phi3",
        {
            "sliding_window": None,
            "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 100},
            "original_max_position_embeddings": 100,
        },
    ),
    "qwen3 (sliding)": ("qwen3", {"layer_types": ["sliding_attention", "full_attention"] * 2}),
}
"""Label → architecture and settings, for paths that the default settings of an architecture do not take."""

NOT_BUILT: dict[str, str] = {
    "dbrx": "'DbrxAttentionConfig' object has no attribute 'rope_theta'",
    # sizes by layer index, to which no common setting applies
    "dots3_note": "`per_layer_config` keys must be integer layer indices",
    "dots3_note_text": "the settings leave it large",
    "gemma3n": "requires the timm library",  # gemma3n_text is swept
    # drafts of speculative decoding, which read another model's cache
    "gemma4_assistant": "hidden_size_per_layer_input must be 0",
    # decoders of audio codes
    "musicgen": "Multiple valid text configs",
    "musicgen_melody": "Multiple valid text configs",
    # reads bytes, through four models of its own
    "blt": "the settings leave it large",
    "xlnet": "has no sequence length limit",
}
"""Architecture that is not swept → the error that `small_model` raises, in part. Remove what is built meanwhile."""


def architectures() -> list[str]:
    """Return the causal architectures of the installed transformers, and variants of some, by label.

    Decoders of encoder-decoder models are not among them.
    """
    causal = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if not CONFIG_MAPPING[name].is_encoder_decoder]
    return [*causal, *_VARIANTS]


def small_model(label: str) -> PreTrainedModel:
    """Make the model of `architectures()` with this label, in fp32 and eval mode; the same weights each time.

    Raises:
        ValueError: the settings leave the model large.
        Exception: transformers refuses the settings, or does not build the architecture.
    """
    architecture, more = _VARIANTS.get(label, (label, {}))
    config = _small_config(architecture, more)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    if parameters > _MOST_PARAMETERS:
        raise ValueError(f"{parameters} parameters: the settings leave it large")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def _small_config(architecture: str, more: Mapping[str, Any]) -> PreTrainedConfig:
    config_class = CONFIG_MAPPING[architecture]
    whole = config_class()
    text = whole.get_text_config()
    settings = {name: value for name, value in _SETTINGS.items() if _can_set(text, name)}
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ()))
    layers = max(4, len(kinds))
    settings |= {name: layers for name in _LAYERS if _can_set(text, name)}
    if "kv_lora_rank" in settings:  # latent attention: keys for each head, as wide as their rotary part
        settings |= {"num_key_value_heads": 4, "head_dim": 8}
    if kinds and _can_set(text, "layer_types"):
        settings["layer_types"] = (kinds * layers)[:layers]
    for name in _PER_LAYER:
        value = getattr(text, name, None)
        if isinstance(value, (list, tuple)) and len(value) > layers and _can_set(text, name):
            settings[name] = list(value)[:layers]
    settings |= {**_MORE.get(text.model_type, {}), **more}
    if text is whole:
        return config_class(**settings)
    parts = {name: getattr(whole, name, None) for name in whole.sub_configs}
    return config_class(
        **{name: settings if part is text else _small_part(part) for name, part in parts.items() if part is not None}
    )


def _can_set(config: PreTrainedConfig, name: str) -> bool:
    name = config.attribute_map.get(name, name)
    own = getattr(type(config), name, None)
    return own.fset is not None if isinstance(own, property) else name in vars(config)


def _small_part(config: PreTrainedConfig) -> dict[str, Any]:
    """Return small settings of the part of a config that is not text."""
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim"), 32)
    sizes |= dict.fromkeys(("num_hidden_layers", "num_layers", "depth"), 1)
    sizes |= dict.fromkeys(("num_attention_heads", "num_heads"), 2)
    sizes |= {"out_hidden_size": 64, "image_size": 28, "patch_size": 14}
    return {name: size for name, size in sizes.items() if hasattr(config, name)}
