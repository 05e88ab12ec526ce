"""Facts about a model and its device, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_checkpoint
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.inspection import (
    base_model,
    batch_invariant_length,
    free_memory,
    has_prompt_learning,
    layer_count,
    out_of_memory,
    plain_attention_only,
)
from cst_bench.progress import Silent


def test_free_memory_is_the_devices_own_with_what_pytorch_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: PyTorch's figures of two GPUs."""
    figures = {"mem_get_info": [(10, 99), (20, 99)], "memory_reserved": [5, 7], "memory_allocated": [1, 2]}
    for name, values in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, values=values: values[device.index])
    assert [free_memory(torch.device("cuda", index)) for index in (0, 1)] == [14, 25]
    assert free_memory(torch.device("cpu")) > 100


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("device-side assert triggered"), False),
    ],
    ids=str,
)
def test_memory_errors_are_recognised_by_type_or_message(error: Exception, memory: bool) -> None:
    assert out_of_memory(error) == memory


def test_an_adapter_has_the_facts_of_its_base(loaded: dict[str, Checkpoint]) -> None:
    plain, adapted = loaded["llama"].model, loaded["adapter"].model
    assert base_model(plain) is plain
    assert type(base_model(adapted)) is type(plain)
    assert layer_count(adapted) == layer_count(plain) == 2
    assert not has_prompt_learning(adapted)


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, True),
        ({"layer_types": ["full_attention", "linear_attention"]}, False),
        ({"attention_chunk_size": 8}, False),
    ],
    ids=str,
)
def test_layers_other_than_attention_are_seen_in_the_config(settings: dict[str, object], plain: bool) -> None:
    assert plain_attention_only(LlamaConfig(num_hidden_layers=2, **settings)) == plain


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, 60),
        ({"rope_type": "longrope", "original_max_position_embeddings": 30}, 30),
        ({"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}}, 60),
    ],
    ids=str,
)
def test_dynamic_rope_limits_the_length_that_no_batch_changes(rope: dict[str, object], length: int | None) -> None:
    config = LlamaConfig(max_position_embeddings=60)
    config.rope_parameters = rope
    assert batch_invariant_length(config) == length


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen2", "adapter"])
def test_parameters_are_counted_in_the_files(name: str, folders: dict[str, Path]) -> None:
    options = CheckpointOptions(name=str(folders[name]), merge=name != "adapter")
    assert find_checkpoint(options).parameter_count == load_checkpoint(options).model.num_parameters()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Run a test with two threads, and restore their number afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_threads_are_limited_for_a_small_model_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EvaluatedModel(CheckpointOptions(device="cpu"), Silent())
    assert model.checkpoint is not None
    assert torch.get_num_threads() == 2
    with monkeypatch.context() as patched:
        patched.setattr("cst_bench.checkpoint.evaluated_model._ONE_THREAD", 1000)
        model.limit_threads()
        assert torch.get_num_threads() == 2
    model.limit_threads()
    assert torch.get_num_threads() == 1
