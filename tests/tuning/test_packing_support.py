"""What packed training refuses: sharded weights, and numbers that differ from TRL's by more than TRL's own."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig

from cst_bench.tuning import TrainOptions, train
from cst_bench.tuning import trainer as making
from cst_bench.tuning.packed import PackedDPOTrainer, unsupported
from cst_bench.tuning.packed.packing_support import difference
from tests.checkpoints import family_tokenizer, make_checkpoint, make_model
from tests.tuning.conftest import write_recipe, write_rows
from tests.tuning.test_equality import make_rows

TOKENS = 400


def launched(config: dict[str, Any], folder: Path) -> dict[str, str]:
    """Return the environment that `accelerate launch` gives a process with this config file."""
    file = folder / "accelerate.yaml"
    whole = {"compute_environment": "LOCAL_MACHINE", "num_processes": 2, "num_machines": 1, "machine_rank": 0, **config}
    file.write_text(yaml.safe_dump(whole))
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(config["deepspeed_config"])  # as its main does
        return dict(prepare_deepspeed_cmd_env(arguments)[1])
    return dict(prepare_multi_gpu_env(arguments))


def test_a_soft_cap_is_refused() -> None:
    """Packed training attends by SDPA, which has none."""
    assert unsupported(make_model("gemma2"), {}, None, 10) == "its attention has a soft-cap"
    assert unsupported(make_model("gemma2", attn_logit_softcapping=None), {}, None, 10) is None


@pytest.mark.parametrize(
    "config",
    [
        {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
        {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}},
        {"distributed_type": "MULTI_GPU"},
    ],
    ids=lambda config: config["distributed_type"],
)
def test_sharding_is_seen_when_a_config_file_of_accelerate_asks_for_it(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")
    assert unsupported(model, {}, None, 10) is None
    for name, value in launched(config, tmp_path).items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    expected = None if config["distributed_type"] == "MULTI_GPU" else "its weights are sharded"
    assert unsupported(model, {}, None, 10) == expected


@pytest.mark.parametrize("options", [{"fsdp": "full_shard"}, {"deepspeed": "zero.json"}])
def test_sharding_is_seen_when_the_recipe_asks_for_it(options: dict[str, Any]) -> None:
    assert unsupported(make_model("llama"), options, None, 10) == "its weights are sharded"


def test_under_accelerate_s_fsdp_trl_trains(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    recipe = write_recipe(tmp_path / "recipe.yaml", llama)
    result = train(TrainOptions(recipe, data=write_rows(tmp_path / "rows.jsonl"), out=tmp_path / "out"))
    assert not result.training["packed"]
    assert result.training["why_not_packed"] == "its weights are sharded"


def test_falling_back_holds_one_model_at_a_time(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seams: a tolerance that nothing meets, and a loader that looks for models that are still there."""
    monkeypatch.setattr("cst_bench.tuning.packed.packing_support._FACTOR", -1)
    for name in ("_STATES", "_HEAD"):
        monkeypatch.setattr(f"cst_bench.tuning.packed.packing_support.{name}", -1.0)
    load = making._load
    models: list[weakref.ref[Any]] = []
    alive: list[list[weakref.ref[Any]]] = []

    def watched(*arguments: Any) -> Any:
        alive.append([model for model in models if model() is not None])
        model = load(*arguments)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(making, "_load", watched)
    recipe = write_recipe(tmp_path / "recipe.yaml", llama)
    result = train(TrainOptions(recipe, data=write_rows(tmp_path / "rows.jsonl"), out=tmp_path / "out"))
    assert "differ by" in str(result.training["why_not_packed"])
    assert alive == [[], []]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt_neox"])
@pytest.mark.parametrize("equal", [True, False], ids=["equal lengths", "other lengths"])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.bfloat16, {"bf16": False}), (torch.float32, {"bf16": True})],
    ids=["bf16 weights", "bf16 autocast"],
)
def test_models_in_bf16_pass_the_check(
    architecture: str, equal: bool, dtype: torch.dtype, options: dict[str, Any], tmp_path: Path
) -> None:
    """With equal lengths TRL's batches of one and of several pairs have the same shapes, and so the same rounding."""
    folder = make_checkpoint(tmp_path / architecture, architecture, num_hidden_layers=12)
    same = {"prompt_ids": [*range(10, 40)], "chosen_ids": [*range(50, 90)], "rejected_ids": [*range(90, 130)]}
    trainer = PackedDPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        args=DPOConfig(str(tmp_path / "work"), use_cpu=True, report_to="none", **options),
        train_dataset=Dataset.from_list([same] * 3 if equal else make_rows(8)),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    assert trainer._checked


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_check_needs_no_more_positions_than_the_model_has(architecture: str, tmp_path: Path) -> None:
    model = make_model(architecture, max_position_embeddings=40)
    row = {"prompt_ids": [*range(10, 30)], "chosen_ids": [*range(30, 50)], "rejected_ids": [7]}
    trainer = PackedDPOTrainer(
        model,
        args=DPOConfig(str(tmp_path / "work"), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list([row]),
        processing_class=family_tokenizer("llama"),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
    )
    assert trainer._checked


def noisy(seed: int, size: float, count: int = 4) -> list[torch.Tensor]:
    """Return log-probabilities of several sequences, with independent deviations of this size from fixed ones."""
    exact = torch.Generator().manual_seed(1)
    noise = torch.Generator().manual_seed(seed)
    return [
        -5 * torch.rand(TOKENS, generator=exact) + size * torch.randn(TOKENS, generator=noise) for _ in range(count)
    ]


@settings(max_examples=40, deadline=None, derandomize=True)  # one in some thousands of sums is more than rounding
@given(st.integers(2, 10**6), st.sampled_from([(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.bfloat16, 0.05)]))
def test_deviations_of_the_size_of_trls_own_are_rounding(seed: int, case: tuple[torch.dtype, float]) -> None:
    dtype, size = case
    assert difference(noisy(seed, size), noisy(seed + 1, size), noisy(seed + 2, size), dtype) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10**6), st.integers(0, 3), st.sampled_from(["shift", "token", "nan"]))
def test_one_wrong_sequence_among_right_ones_is_found(seed: int, which: int, kind: str) -> None:
    ours, theirs, alone = (noisy(seed + step, 0.002) for step in range(3))
    if kind == "shift":
        ours[which] += 0.02  # 8 nats over the sequence
    elif kind == "token":
        ours[which][7] += 4
    else:
        ours[which][7] = torch.nan
    assert difference(ours, theirs, alone, torch.bfloat16) is not None


def test_equal_sums_do_not_hide_wrong_tokens() -> None:
    ours, theirs = noisy(2, 0), noisy(2, 0)
    ours[0] += 0.3 * torch.tensor([1.0, -1.0]).repeat(TOKENS // 2)
    assert difference(ours, theirs, theirs, torch.bfloat16) is not None
