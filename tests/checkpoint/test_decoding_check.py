"""Responses are those of `generate` alone, also where rows cannot share a batch, and the checkpoint says why."""

from __future__ import annotations

import dataclasses
import functools
import logging
import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, PreTrainedModel

from cst_bench.checkpoint import Checkpoint, CheckpointOptions
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.decoding import DecodeBatch, cache_argument
from cst_bench.checkpoint.decoding_check import checked_mode
from cst_bench.checkpoint.decoding_modes import CheckedModes, Mode
from cst_bench.checkpoint.engine import GeneratedTokens
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.sampling import Sampling, SamplingRow
from cst_bench.record import CheckpointIdentity
from tests.checkpoint.test_generation import GREEDY, by_transformers
from tests.checkpoint.test_generation import prompts as chat_prompts
from tests.checkpoints import VOCABULARY, family_tokenizer, make_model

TOKENS = 14
ALONE = (
    "prompts with more than 64 tokens, response included, are decoded one at a time: "
    "beyond that, rope depends on the batch"
)
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
INDEXED = {**LATENT, "num_key_value_heads": 4, "index_topk": 24, "index_n_heads": 2, "index_head_dim": 16}
ROPE: dict[str, Any] = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
BESIDE_OTHERS: dict[str, tuple[Mode, str, dict[str, Any]]] = {
    "rwkv": ("alone", "differ by", {"attention_hidden_size": 32}),
    "glm_moe_dsa": ("equal", "differ by", {**INDEXED, "mlp_layer_types": ["dense", "sparse"]}),
    "cpmant": ("padded", "fails with", {"dim_head": 8, "dim_ff": 64, "prompt_types": 4, "prompt_length": 4}),
}
"""Architecture → how it is decoded, a part of the reason, its config over `make_model`'s."""
DORY: dict[str, Any] = {
    "n_input_layers": 1,
    "n_output_layers": 1,
    "num_hidden_layers": 4,
    "head_dim": 8,
    "num_key_value_heads": 2,
}
BY_LENGTH: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "dynamic", **ROPE}, "max_position_embeddings": 64},
    "phi3": {
        "rope_parameters": {**LONG, **ROPE},
        "original_max_position_embeddings": 64,
        "max_position_embeddings": 256,
        "num_key_value_heads": 2,
    },
}


def checkpoint_of(model: PreTrainedModel, rows: int = 4) -> Checkpoint:
    chat = Chat(family_tokenizer("llama"), frozenset(), "system")
    identity = CheckpointIdentity(label="random", kind="local")
    return Checkpoint("random", CheckpointOptions(batch_size=rows), model, chat, identity, 240)


def prompts(lengths: tuple[int, ...] = (12, 3, 45, 20, 2, 70, 5, 31)) -> list[list[int]]:
    numbers = random.Random(0)
    return [[numbers.randrange(10, VOCABULARY) for _ in range(length)] for length in lengths]


def ids(responses: list[GeneratedTokens]) -> list[list[int]]:
    return [response.ids for response in responses]


def test_a_model_that_takes_its_cache_by_the_new_name_only_is_decoded_in_a_running_batch() -> None:
    if "dory" not in CONFIG_MAPPING:
        pytest.skip("the installed transformers has no dory")
    checkpoint = checkpoint_of(make_model("dory", **{"pad_token_id": 0, **DORY}))
    expected = [by_transformers(checkpoint, prompt, TOKENS) for prompt in prompts()]
    with Generator(checkpoint) as generator:
        assert ids(generator.generate(prompts(), Sampling(TOKENS))) == expected
    assert checkpoint.modes.fallback is None


@pytest.mark.parametrize("architecture", BESIDE_OTHERS)
def test_rows_that_change_beside_others_are_decoded_apart(architecture: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="cst_bench.checkpoint.decoding_check")
    mode, reason, config = BESIDE_OTHERS[architecture]
    checkpoint = checkpoint_of(make_model(architecture, **{"pad_token_id": 0, **config}))
    expected = [by_transformers(checkpoint, prompt, TOKENS) for prompt in prompts()]
    for _ in range(2):
        with Generator(checkpoint) as generator:
            assert ids(generator.generate(prompts(), Sampling(TOKENS))) == expected
    fallback = checkpoint.modes.fallback
    assert fallback is not None
    assert reason in fallback
    assert {"padded": "end before", "equal": "equal length", "alone": "one at a time"}[mode] in fallback
    assert [record.getMessage() for record in caplog.records if "decoding_check" in record.name][-1] == fallback


@pytest.mark.parametrize("architecture", ["rwkv", "glm_moe_dsa"])
def test_faults_are_told_from_rounding_in_bf16(architecture: str) -> None:
    mode, _, config = BESIDE_OTHERS[architecture]
    model = make_model(architecture, **{"pad_token_id": 0, "initializer_range": 0.4, **config}).to(torch.bfloat16)
    checkpoint = checkpoint_of(model)
    rows = [SamplingRow(prompt, Sampling(TOKENS)) for prompt in prompts()]
    assert checked_mode(checkpoint, rows, capacity=10_000) == mode


@pytest.mark.parametrize("architecture", BY_LENGTH)
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6, 7], [5, 2, 7, 0, 1, 6, 4, 3]])
def test_rope_that_depends_on_the_batch_is_that_of_each_row(architecture: str, order: list[int]) -> None:
    asked = prompts()
    expected = {
        index: by_transformers(checkpoint_of(make_model(architecture, **BY_LENGTH[architecture])), prompt, TOKENS)
        for index, prompt in enumerate(asked)
    }
    checkpoint = checkpoint_of(make_model(architecture, **BY_LENGTH[architecture]))
    with Generator(checkpoint) as generator:
        responses = generator.generate([asked[index] for index in order], Sampling(TOKENS))
        assert ids(responses) == [expected[index] for index in order]
        assert list(checkpoint.modes.lengths) == ["compact"]
        assert checkpoint.modes.fallback == ALONE


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_dynamic_rope_gives_each_row_its_own_tokens_in_any_company(lengths: list[int]) -> None:
    config = BY_LENGTH["llama"]
    asked = prompts(tuple(lengths))
    with Generator(checkpoint_of(make_model("llama", **config))) as generator:
        together = ids(generator.generate(asked, Sampling(4)))
    for prompt, tokens in zip(asked, together):
        assert tokens == by_transformers(checkpoint_of(make_model("llama", **config)), prompt, 4)


def test_no_pass_holds_a_row_beyond_the_original_length_and_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", **BY_LENGTH["llama"])
    passes: list[tuple[int, int]] = []
    forward = model.forward

    @functools.wraps(forward)
    def seen(**inputs: Any) -> object:
        (rows, tokens), cache = inputs["input_ids"].shape, inputs.get(cache_argument(model))
        passes.append((rows, tokens + (0 if cache is None else cache.get_seq_length())))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", seen)
    with Generator(checkpoint_of(model)) as generator:
        generator.generate(prompts(), Sampling(TOKENS))
    assert max(length for _, length in passes) > 64
    assert max(rows for rows, _ in passes) > 1
    assert all(rows == 1 for rows, length in passes if length > 64)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gemma", "gpt_neox", "adapter"])
def test_sound_models_pass_and_stay_in_a_running_batch(loaded: dict[str, Checkpoint], name: str) -> None:
    checkpoint = dataclasses.replace(loaded[name], modes=CheckedModes())  # other tests share the loaded one
    with Generator(checkpoint) as generator:
        generator.generate(chat_prompts(checkpoint), GREEDY)
    modes = checkpoint.modes
    assert list(modes.lengths) == ["compact"]
    assert not modes.refused
    assert modes.fallback is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_rounding_is_not_taken_for_a_fault(dtype: torch.dtype, name: str) -> None:
    config: dict[str, Any] = {"num_key_value_heads": 2, "initializer_range": 0.05}
    checkpoint = checkpoint_of(make_model(name, **config).to(dtype))
    with Generator(checkpoint) as generator:
        generator.generate(prompts(), Sampling(TOKENS))
    assert checkpoint.modes.fallback is None
    assert "compact" in checkpoint.modes.lengths


def test_a_check_is_kept_with_the_checkpoint_and_repeated_only_for_longer_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model("llama", num_key_value_heads=2)
    calls = 0
    forward = model.forward

    @functools.wraps(forward)
    def counted(**inputs: Any) -> object:
        nonlocal calls
        calls += 1
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    checkpoint = checkpoint_of(model)

    def passes(prompt: list[int]) -> int:
        before = calls
        with Generator(checkpoint) as generator:
            generator.generate([prompt], Sampling(2))
        return calls - before

    short, long = prompts((10, 100))
    first, *again = [passes(short) for _ in range(3)]
    assert first > again[0] == again[1]
    assert passes(long) > again[0] == passes(long)
    assert checkpoint.modes.lengths == {"compact": 128}


def test_a_check_fits_in_the_memory_and_one_row_at_a_time_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoint_of(make_model("llama", num_key_value_heads=2))
    expected = [by_transformers(checkpoint, prompt, TOKENS) for prompt in prompts()]
    monkeypatch.setattr("cst_bench.checkpoint.generation.token_capacity", lambda _: 90)
    with Generator(checkpoint) as generator:
        assert ids(generator.generate(prompts(), Sampling(TOKENS))) == expected
    assert checkpoint.modes.lengths == {"compact": 30}
    alone = checkpoint_of(checkpoint.model, rows=1)
    with Generator(alone) as generator:
        assert ids(generator.generate(prompts(), Sampling(TOKENS))) == expected
    assert not alone.modes.lengths


@pytest.mark.parametrize("refused", [{"compact"}, {"compact", "padded"}, {"compact", "padded", "equal"}])
def test_rows_that_leave_a_running_batch_go_on_after_their_tokens(
    refused: set[Mode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in a running batch, and the check of the next one fails."""
    checkpoint = checkpoint_of(make_model("llama", num_key_value_heads=2))
    sampling = Sampling(TOKENS, temperature=0.9, seed=3)
    with Generator(checkpoint) as generator:
        expected = generator.generate(prompts(), sampling)
    step, calls = DecodeBatch.step, 0

    def faulty(self: DecodeBatch) -> list[SamplingRow]:
        nonlocal calls
        calls += 1
        if calls == 5:
            checkpoint.modes.refused |= refused
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self)

    monkeypatch.setattr(DecodeBatch, "step", faulty)
    with Generator(checkpoint) as generator:
        assert generator.generate(prompts(), sampling) == expected
        assert generator.rows == 2
    assert calls == 5


def test_running_out_of_memory_in_the_check_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", num_key_value_heads=2)
    checkpoint = checkpoint_of(model)
    expected = [by_transformers(checkpoint, prompt, TOKENS) for prompt in prompts()]
    forward, left = model.forward, [None, None, None, torch.OutOfMemoryError("CUDA out of memory")]

    @functools.wraps(forward)
    def faulty(**inputs: Any) -> object:
        if left and (error := left.pop(0)) is not None:
            raise error
        return forward(**inputs)

    with Generator(checkpoint) as generator:
        monkeypatch.setattr(model, "forward", faulty)
        assert ids(generator.generate(prompts(), Sampling(TOKENS))) == expected
        assert not left
    assert list(checkpoint.modes.lengths) == ["compact"]
    assert checkpoint.modes.fallback is None
