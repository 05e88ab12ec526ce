"""Random tiny models of many architectures, and random request sets for them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM
from transformers.models.gptj.modeling_gptj import GPTJPreTrainedModel

from cst_bench.capabilities.likelihoods.scorer import Scored
from tests.checkpoints import family_tokenizer, make_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Request = tuple[None, list[int], list[int]]

_GROUPED = {"num_key_value_heads": 2}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_ALTERNATING = ["sliding_attention", "full_attention"]

PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _GROUPED),
    "llama3": ("llama", {**_GROUPED, "rope_parameters": _LLAMA3}),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": 8}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2 sliding": ("qwen2", {"num_key_value_heads": 4, "use_sliding_window": True, "sliding_window": 8,
                                "max_window_layers": 1}),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("gemma2", {**_GROUPED, "head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 2.0}),
    "gpt-oss": ("gpt_oss", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
                            "sliding_window": 8}),
    "gemma3": ("gemma3_text", {**_GROUPED, "head_dim": 16, "sliding_window": 8, "layer_types": _ALTERNATING}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": 16}),
    "olmo2": ("olmo2", {}),
    "mixtral": ("mixtral", {**_GROUPED, "num_local_experts": 4}),
    "cohere2": ("cohere2", {**_GROUPED, "sliding_window": 8, "layer_types": _ALTERNATING}),
    "deepseek": ("deepseek_v3", {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
                                 "qk_nope_head_dim": 8, "v_head_dim": 12, "first_k_dense_replace": 2}),
}  # fmt: skip
"""Models that are scored packed: name → architecture and its config over `make_model`'s."""

STOCK: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {}, "cannot be replaced"),
    "gptj": ("gptj", {"rotary_dim": 4}, "cannot be replaced"),
    "falcon": ("falcon", {"alibi": True}, "cannot be replaced"),
    "mamba": ("mamba", {"state_size": 4}, "layers other than"),
    "llama4": ("llama4_text", {**_GROUPED, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
               "layers other than"),
}  # fmt: skip
"""Models that must be left to stock: name → architecture, config, and a part of the reason."""
if getattr(GPTJPreTrainedModel, "_supports_attention_backend", False):  # as of transformers 5.24
    PACKED["gptj"] = STOCK.pop("gptj")[:2]


def tiny(name: str, **config: Any) -> PreTrainedModel:
    """Make a model of `PACKED` or `STOCK`."""
    architecture, settings = (PACKED.get(name) or STOCK[name])[:2]
    return make_model(architecture, **{**settings, **config})


def stock(
    model: PreTrainedModel, requests: list[Request], max_length: int = 100, batch_size: int = 4, **rest: object
) -> list[Scored]:
    """Score with lm-eval's own `hf`."""
    lm = HFLM(model, tokenizer=family_tokenizer("llama"), max_length=max_length, batch_size=batch_size, **rest)
    return list(lm._loglikelihood_tokens(requests, disable_tqdm=True))


def make_requests(seed: int, documents: int = 12, vocabulary: int = 380) -> list[Request]:
    """Make documents with and without a common prefix, some longer than 100 tokens, some of a single one.

    Continuations are repeated, nested, or share a prefix.
    """
    draw = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(count)]

    prefix, requests = tokens(50), []
    for index in range(documents):
        context = (prefix if index % 2 else []) + tokens(draw.choice([1, 2, 9, 30, 60]))
        for _ in range(draw.randrange(1, 5)):
            continuation = tokens(draw.randrange(1, 7))
            requests.append((context, continuation))
            if draw.random() < 0.3:
                requests.append((context, continuation))
            if draw.random() < 0.5:
                requests.append((context, continuation[:2]))
            if draw.random() < 0.5:
                requests.append((context, [*continuation[:2], *tokens(2)]))
    draw.shuffle(requests)
    return [(None, list(context), list(continuation)) for context, continuation in requests]
