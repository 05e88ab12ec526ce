"""Greedy tokens equal those of `transformers` for many more architectures, each with what is particular to it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from cst_bench.checkpoint import Checkpoint, CheckpointOptions
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.decoding import can_compact
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.record import CheckpointIdentity
from tests.checkpoint.test_generation import GREEDY, by_transformers, prompts
from tests.checkpoints import VOCABULARY, family_tokenizer, make_checkpoint, make_model

STOPS = frozenset(range(2, 10))
"""Enough tokens that some responses end by themselves."""


IDENTITY = CheckpointIdentity(label="random", kind="local")


@dataclass(frozen=True)
class Case:
    """A model's settings beside the usual small ones, and how it is decoded."""

    compact: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
}
CASES = {
    "bloom (alibi)": Case(),
    "falcon (alibi)": Case(settings={"alibi": True, "multi_query": False, "new_decoder_architecture": False}),
    "gpt2 (learned positions)": Case(settings={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "phi": Case(),
    "phi3 (sliding window)": Case(settings={"sliding_window": 6}),
    "gemma2 (every other layer slides)": Case(settings={"head_dim": 8, "sliding_window": 6}),
    "gemma3_text (layers slide by pattern)": Case(settings={"head_dim": 8, "sliding_window": 6}),
    "gemma4_text (head size by layer)": Case(settings={"head_dim": 8, "sliding_window": 6}),
    "gpt_oss (attention sinks)": Case(settings={**EXPERTS, "head_dim": 8, "sliding_window": 6}),
    "mixtral (experts)": Case(settings=EXPERTS),
    "qwen3_moe (experts)": Case(settings={**EXPERTS, "head_dim": 8, "moe_intermediate_size": 32}),
    "deepseek_v3 (latent attention)": Case(settings={**EXPERTS, **LATENT, "moe_intermediate_size": 32}),
    "llama4_text (chunks)": Case(False, {**EXPERTS, "head_dim": 8, "attention_chunk_size": 8}),
    "falcon_mamba (state space)": Case(False, {"state_size": 4}),
    "qwen3_next (linear attention)": Case(False, {**EXPERTS, **LINEAR, "head_dim": 8, "num_hidden_layers": 4}),
    "lfm2 (convolution)": Case(False, {"layer_types": ["conv", "full_attention"]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_are_those_of_transformers(name: str) -> None:
    case = CASES[name]
    small = {"num_key_value_heads": 2, "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 2}
    model = make_model(name.partition(" ")[0], **{**small, **case.settings})
    assert can_compact(model) == case.compact
    checkpoint = Checkpoint(
        name, CheckpointOptions(batch_size=3), model, Chat(family_tokenizer("llama"), STOPS, "system"), IDENTITY, 256
    )
    numbers = random.Random(0)
    asked = [[numbers.randrange(10, VOCABULARY) for _ in range(length)] for length in (12, 3, 9, 20, 2, 15, 5, 7)]
    with Generator(checkpoint) as generator:
        responses = generator.generate(asked, Sampling(14))
    expected = [by_transformers(checkpoint, prompt, 14) for prompt in asked]
    assert [response.ids for response in responses] == [ids[:-1] if ids[-1] in STOPS else ids for ids in expected]


def test_a_state_space_model_has_no_attention_heads_in_its_config() -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    chat = Chat(family_tokenizer("mamba"), STOPS, "system")
    checkpoint = Checkpoint("mamba", CheckpointOptions(batch_size=2), model, chat, IDENTITY, 256)
    with Generator(checkpoint) as generator:
        assert all(response.generated_tokens for response in generator.generate([[50, 60], [70], [80]], Sampling(3)))


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "IA3Config"])
def test_adapters_other_than_lora(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Virtual tokens are put before each input again, so a moving batch would repeat them at every step."""
    import peft
    from transformers import AutoModelForCausalLM

    from cst_bench.checkpoint import load_checkpoint

    ia3 = kind == "IA3Config"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"init_ia3_weights": False} if ia3 else {"num_virtual_tokens": 4}
        base = AutoModelForCausalLM.from_pretrained(make_checkpoint(tmp_path / "base"))
        adapted = peft.get_peft_model(base, getattr(peft, kind)(task_type="CAUSAL_LM", **settings))
    adapted.save_pretrained(tmp_path / "adapter")
    checkpoint = load_checkpoint(
        CheckpointOptions(name=str(tmp_path / "adapter"), base=str(folders["llama"]), batch_size=3)
    )
    assert can_compact(checkpoint.model) == ia3
    with Generator(checkpoint) as generator:
        responses = generator.generate(prompts(checkpoint), GREEDY)
    for prompt, response in zip(prompts(checkpoint), responses):
        theirs = by_transformers(checkpoint, prompt)
        assert response.ids == (theirs[:-1] if theirs[-1] in checkpoint.chat.stop_ids else theirs)
