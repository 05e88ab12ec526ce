"""An adapter is merged into its base on loading: which ones, how exactly, and what the run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, PeftConfig, PeftModel, PromptTuningConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_checkpoint
from cst_bench.errors import UserError
from tests.checkpoints import lora_config, make_adapter, make_checkpoint

KINDS: dict[str, PeftConfig] = {
    "lora": lora_config(),
    "rslora": lora_config(use_rslora=True, r=8),
    "dora": lora_config(use_dora=True),
    "ranks": lora_config(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32}),
    "saved_head": lora_config(modules_to_save=["lm_head"]),
    "norms": lora_config(modules_to_save=["norm"]),
    "loha": LoHaConfig(r=4, alpha=8, target_modules=["q_proj", "down_proj"], init_weights=False),
    "lokr": LoKrConfig(r=4, alpha=8, target_modules=["q_proj", "down_proj"], init_weights=False),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False),
}
IDS = torch.arange(2, 40)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "llama", "llama")


def load(folder: Path, **options: Any) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(str(folder), **options))


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = checkpoint.model(input_ids=IDS).logits
    return output.float()


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_gives_the_logits_of_the_adapter_on_its_base(kind: str, base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / kind, base, adapter=KINDS[kind])
    merged, apart = load(folder), load(folder, merge=False)
    assert not isinstance(merged.model, PeftModel)
    assert isinstance(apart.model, PeftModel)
    assert not torch.allclose(logits(merged), logits(load(base)), atol=0.1)
    torch.testing.assert_close(logits(merged), logits(apart), atol=1e-4, rtol=1e-4)
    assert (merged.identity.merged, apart.identity.merged) == ("float32", None)


def test_the_sum_is_made_in_float32_and_rounded_once(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "adapter", base)
    exact = load(folder).model.state_dict()
    rounded = load(folder, dtype="bfloat16").model.state_dict()
    # a base in bfloat16 is what the weights are; only the sum can be rounded otherwise
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).float()
    expected = PeftModel.from_pretrained(whole, str(folder)).merge_and_unload().state_dict()
    assert all(value.dtype == torch.bfloat16 for value in rounded.values())
    assert all(torch.equal(value, expected[name].bfloat16()) for name, value in rounded.items())
    assert exact.keys() == rounded.keys()


def test_adapters_that_cannot_be_merged_stay_apart(base: Path, tmp_path: Path) -> None:
    tuned = make_adapter(
        tmp_path / "prompt", base, adapter=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    checkpoint = load(tuned)
    assert isinstance(checkpoint.model, PeftModel)
    assert checkpoint.identity.merged is None


@pytest.mark.parametrize("targets", [["embed_tokens", "q_proj"], ["q_proj", "lm_head"]])
def test_tied_embeddings_are_not_merged_into(targets: list[str], tmp_path: Path) -> None:
    tied = make_checkpoint(tmp_path / "tied", "llama", tie_word_embeddings=True)
    folder = make_adapter(tmp_path / "adapter", tied, adapter=lora_config(target_modules=targets))
    checkpoint = load(folder)
    assert isinstance(checkpoint.model, PeftModel)
    assert checkpoint.identity.merged is None
    untied = make_checkpoint(tmp_path / "untied", "llama", tie_word_embeddings=False)
    folder = make_adapter(tmp_path / "other", untied, adapter=lora_config(target_modules=targets))
    torch.testing.assert_close(logits(load(folder)), logits(load(folder, merge=False)), atol=1e-4, rtol=1e-4)


def test_a_merge_that_peft_refuses_says_how_to_load_it(tmp_path: Path) -> None:
    tied = make_checkpoint(tmp_path / "tied", "llama", tie_word_embeddings=True)
    folder = make_adapter(tmp_path / "adapter", tied, adapter=lora_config(target_modules=["lm_head"]))
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": ".*m_he.*"}))  # hides the name
    with pytest.raises(UserError, match=r"could not merge this adapter: .*; load it with --no-merge$") as raised:
        load(folder)
    assert str(raised.value).startswith(f"{folder}: ")
    assert "\n" not in str(raised.value)


def test_weights_that_are_no_numbers_are_not_merged(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "adapter", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, name: tensors[name] * float("nan")}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="could not merge this adapter: NaNs detected"):
        load(folder)


def test_no_merge_is_for_adapters(base: Path) -> None:
    with pytest.raises(UserError, match=r"^--no-merge is for adapters, and .* has no adapter_config\.json$"):
        find_checkpoint(CheckpointOptions(str(base), merge=False))


def test_a_4_bit_base_is_not_merged_into(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "adapter", base)
    assert find_checkpoint(CheckpointOptions(str(folder), load_in_4bit=True)).identity.merged is None
