"""Training into a checkpoint: what comes out loads anywhere, and what is wrong is one message."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.cli.train import command
from cst_bench.errors import GateError, UserError
from cst_bench.tuning import TrainOptions, TrainResult, train
from tests.checkpoints import make_adapter, make_checkpoint, make_image_text_checkpoint
from tests.numerics import assert_as_exact
from tests.tuning.conftest import cst_rows, row, write_recipe, write_rows


def run(
    tmp_path: Path, base: Path, name: str = "out", recipe: dict[str, Any] | None = None, **options: Any
) -> TrainResult:
    """Train on the usual rows."""
    data = options.pop("data", None) or write_rows(tmp_path / "rows.jsonl")
    path = write_recipe(tmp_path / "recipe.yaml", base, **(recipe or {}))
    return train(TrainOptions(path, data=data, out=tmp_path / name, **options))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return values


def test_an_adapter_is_a_checkpoint_here_and_for_plain_peft(tmp_path: Path, llama: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = run(tmp_path, llama)
    training = result.training
    assert (training["packed"], training["steps"]) == (True, 2)
    assert training["settings"]["data"]["by_configuration"] == {"S0": 6, "S1": 6}
    assert {"loss", "rewards/margins", "rewards/accuracies"} <= training["metrics"][0].keys()
    assert not list(tmp_path.glob(".*"))

    prompt = conversation("You are old.", "Hello!")
    mine = load_checkpoint(CheckpointOptions(str(result.folder)))
    base = load_checkpoint(CheckpointOptions(str(llama)))
    ids = mine.chat.prompt_ids(prompt)
    assert ids == base.chat.prompt_ids(prompt)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), result.folder)
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    assert tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"] == ids
    torch.testing.assert_close(logits(mine.model, ids), logits(plain.eval(), ids), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(mine.model, ids), logits(base.model, ids), atol=1e-3)


def test_stock_and_packed_training_end_with_the_same_weights(tmp_path: Path, llama: Path) -> None:
    recipe = {"trl": {"optim": "sgd", "learning_rate": 1.0, "num_train_epochs": 3}}
    packed = run(tmp_path, llama, "packed", recipe)
    stock = run(tmp_path, llama, "stock", recipe, stock=True)
    assert (packed.training["packed"], stock.training["packed"]) == (True, False)
    ours, theirs = weights(packed.folder), weights(stock.folder)
    moved = weights(run(tmp_path, llama, "still", {"trl": {"optim": "sgd", "learning_rate": 0.0}}).folder)
    for name, tensor in theirs.items():
        difference = float((ours[name] - tensor).norm())
        assert difference <= 1e-3 * float((tensor - moved[name]).norm()) + 1e-7, name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path: Path, llama: Path) -> None:
    first, second, other = (run(tmp_path, llama, str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert first.training["weights_sha256"] == second.training["weights_sha256"] != other.training["weights_sha256"]


def test_merged_is_the_adapter_in_its_base(tmp_path: Path, llama: Path) -> None:
    adapter = load_checkpoint(CheckpointOptions(str(run(tmp_path, llama).folder)))
    folder = run(tmp_path, llama, "merged", merge=True).folder
    merged = load_checkpoint(CheckpointOptions(str(folder)))
    assert not (folder / "adapter_config.json").exists()
    assert merged.model.config.pad_token_id == load_checkpoint(CheckpointOptions(str(llama))).model.config.pad_token_id
    ids = merged.chat.prompt_ids(conversation("You are old.", "Hello!"))
    ours, stock = logits(merged.model, ids), logits(adapter.model, ids)
    assert_as_exact(ours, stock, logits(adapter.model.double(), ids))


def test_full_fine_tuning_gives_a_whole_model(tmp_path: Path, llama: Path) -> None:
    result = run(tmp_path, llama, recipe={"lora": None, "trl": {"learning_rate": 1e-3}})
    assert result.training["packed"]
    model = load_checkpoint(CheckpointOptions(str(result.folder)))
    assert model.identity.kind == "local"
    assert weights(result.folder).keys() == weights(llama).keys()
    assert not torch.equal(weights(result.folder)["model.norm.weight"], weights(llama)["model.norm.weight"])


def test_a_finished_folder_is_kept_and_other_settings_are_refused(tmp_path: Path, llama: Path) -> None:
    first = run(tmp_path, llama)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    again = run(tmp_path, llama)
    assert again.was_finished
    with pytest.raises(UserError, match=r"a finished training with other settings \(seed: 0, not 1\)"):
        run(tmp_path, llama, seed=1)
    with pytest.raises(UserError, match=r"trl.beta"):
        run(tmp_path, llama, changes=("trl.beta=0.3",))
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="is not the folder of a finished training"):
        run(tmp_path, llama, "mine")


def test_reference_log_probabilities_are_computed_once_for_dpo_and_cst_and_every_beta(
    tmp_path: Path, llama: Path, cache: Path
) -> None:
    def lines() -> int:
        return sum(len(path.read_text().splitlines()) for path in (cache / "reference").iterdir())

    dpo = write_rows(tmp_path / "dpo.jsonl", cst_rows()[::2])
    cold = run(tmp_path, llama, "cold", cache=tmp_path / "elsewhere")
    run(tmp_path, llama, "dpo", data=dpo)
    assert lines() == 6
    warm = run(tmp_path, llama, "cst")
    assert lines() == 12
    run(tmp_path, llama, "beta", changes=("trl.beta=0.5",), seed=1)
    assert lines() == 12
    assert warm.training["weights_sha256"] == cold.training["weights_sha256"]
    run(tmp_path, make_checkpoint(tmp_path / "other", seed=2), "other-base")
    assert lines() == 24


def test_reference_log_probabilities_are_of_a_base_as_its_config_has_it(tmp_path: Path, llama: Path) -> None:
    other = tmp_path / "other-rope"
    shutil.copytree(llama, other)
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 3.0}
    (other / "config.json").write_text(json.dumps(config))
    run(tmp_path, llama, "first")
    shared = run(tmp_path, other, "shared")
    alone = run(tmp_path, other, "alone", cache=tmp_path / "elsewhere")
    assert shared.training["weights_sha256"] == alone.training["weights_sha256"]


def test_the_reference_of_a_full_fine_tuning_is_the_revision_that_is_trained(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is in a Hub cache with two revisions, with the layout of the Hub's client."""
    model = tmp_path / "hub" / "models--village--llama"
    shutil.copytree(llama, model / "snapshots" / ("a" * 40))
    make_checkpoint(model / "snapshots" / ("b" * 40), seed=7)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    (model / "refs" / "older").write_text("b" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    loading = CheckpointOptions(name="", revision="older")
    recipe = {"lora": None, "trl": {"gradient_accumulation_steps": 1}}
    for stock in (False, True):
        result = run(tmp_path, Path("village/llama"), f"out-{stock}", recipe, stock=stock, loading=loading)
        assert result.training["packed"] is not stock
        first = result.training["metrics"][0]
        # with the other revision as the reference they would be 1.3 and 0.13
        assert (first["rewards/chosen"], first["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=1e-3)


def test_what_tensorboard_reads_stays(tmp_path: Path, llama: Path) -> None:
    result = run(tmp_path, llama, changes=("trl.report_to=tensorboard",))
    assert [path for path in (result.folder / "runs").rglob("*tfevents*") if path.stat().st_size > 100]


def test_a_model_is_asked_in_the_form_that_it_was_trained_with(tmp_path: Path, llama: Path) -> None:
    result = run(tmp_path, llama, loading=CheckpointOptions(name="", system_as="user-prefix"))
    with pytest.raises(UserError, match="trained with --system-as user-prefix"):
        find_checkpoint(CheckpointOptions(name=str(result.folder)))
    files = find_checkpoint(CheckpointOptions(name=str(result.folder), system_as="user-prefix"))
    assert files.identity.training is not None
    assert files.identity.training.system_as == "user-prefix"


@pytest.mark.slow
def test_a_line_of_the_cache_that_was_cut_off_is_computed_again(tmp_path: Path, llama: Path, cache: Path) -> None:
    whole = run(tmp_path, llama, "whole")
    path = next((cache / "reference").iterdir())
    path.write_text(path.read_text()[:-20])
    again = run(tmp_path, llama, "again")
    assert again.training["weights_sha256"] == whole.training["weights_sha256"]
    assert len(path.read_text().splitlines()) == 13


@pytest.mark.parametrize(("architecture", "reason"), [("mamba", "attention"), ("llama", None)])
def test_what_cannot_be_packed_is_trained_by_trl_with_the_reason(
    tmp_path: Path, architecture: str, reason: str | None
) -> None:
    base = make_checkpoint(tmp_path / "base", architecture)
    modules = "all-linear" if reason is None else ["in_proj", "x_proj"]
    recipe: dict[str, Any] = {"lora": {"r": 2, "target_modules": modules}}
    if reason is None:
        recipe["trl"] = {"truncation_mode": "keep_end"}
    result = run(tmp_path, base, recipe=recipe)
    assert not result.training["packed"]
    assert (reason or "truncation_mode") in result.training["why_not_packed"]
    with pytest.raises(UserError, match="cannot be trained packed"):
        run(tmp_path, base, "other", {**recipe, "fast": "on"})


def test_an_image_text_model_is_trained_by_trl_on_text(tmp_path: Path) -> None:
    result = run(tmp_path, make_image_text_checkpoint(tmp_path / "base", "mistral3"))
    assert result.training["why_not_packed"] == "it is a multimodal model"
    checkpoint = load_checkpoint(CheckpointOptions(name=str(tmp_path / "out")))
    assert checkpoint.model.config.model_type == "mistral3"


def test_a_model_whose_numbers_differ_is_trained_by_trl(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one fake: attention over a pack that sees wrong rows, in a long row after short ones."""
    from cst_bench.checkpoint.attention_kernels import grouped_attention
    from cst_bench.tuning.packed import packed_attention as attention

    last = row("Be kind.", "And boat number 99?", "It is far out at sea. " * 12, "I don't know.")
    data = write_rows(tmp_path / "long.jsonl", [*cst_rows(), last])
    longest = 150

    real = grouped_attention

    def see_all(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """Ignore causality in long sequences only, like a sliding window that is not passed on."""
        causal = query.shape[2] < longest
        return real(query, *args, **options | {"causal": causal})

    monkeypatch.setattr(attention, "grouped_attention", see_all)
    result = run(tmp_path, llama, data=data)
    assert not result.training["packed"]
    assert "differ by" in result.training["why_not_packed"]
    monkeypatch.undo()
    stock = run(tmp_path, llama, "stock", stock=True, data=data)
    assert result.training["weights_sha256"] == stock.training["weights_sha256"]


def test_out_of_memory_is_one_message_that_says_what_to_change(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one fake: the error that a GPU without room raises."""
    from cst_bench.tuning.packed import PackedDPOTrainer

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(PackedDPOTrainer, "training_step", full)
    with pytest.raises(UserError, match=r"out of memory: try --set trl.per_device_train_batch_size=1 .*gradient_check"):
        run(tmp_path, llama)


def test_a_diverged_training_makes_no_checkpoint(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(UserError, match=r"diverged: .* lower trl.learning_rate"):
        run(tmp_path, llama, recipe={"trl": {"learning_rate": 1e30, "num_train_epochs": 3, "max_grad_norm": 0.0}})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"lora": {"target_modules": ["w_proj"]}}, "w_proj"),
        ({"trl": {"loss_type": ["sigmoidal"]}}, "sigmoidal"),
        ({"trl": {"loss_type": ["sigmoid"], "loss_weights": [1.0, 2.0]}}, "loss_weights"),
        ({"quantization": {"load_in_4bit": True}}, "needs bitsandbytes"),
    ],
)
def test_settings_that_a_library_rejects_are_one_message(
    tmp_path: Path, llama: Path, recipe: dict[str, Any], message: str
) -> None:
    if message == "needs bitsandbytes" and find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(UserError, match=message):
        run(tmp_path, llama, recipe=recipe)


def test_the_gate_stops_a_template_before_training_and_user_prefix_cures_it(tmp_path: Path) -> None:
    gemma = make_checkpoint(tmp_path / "gemma", "gemma")
    with pytest.raises(GateError, match="--system-as user-prefix"):
        run(tmp_path, gemma)
    options = CheckpointOptions(system_as="user-prefix")
    result = run(tmp_path, gemma, loading=options)
    assert "--system-as user-prefix" in (result.folder / "README.md").read_text()


def test_an_adapter_is_not_a_base(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(UserError, match="is an adapter"):
        run(tmp_path, make_adapter(tmp_path / "adapter", llama))


def test_names_from_a_data_file_stay_text_in_the_model_card(tmp_path: Path, llama: Path) -> None:
    rows = [{**row("You are old.", f"Hello {i}!", "Hi.", "Go."), "task": "<b>|x|"} for i in range(3)]
    result = run(tmp_path, llama, data=write_rows(tmp_path / "mine.jsonl", rows))
    card = (result.folder / "README.md").read_text()
    assert "<b>" not in card
    assert "&lt;b&gt;" in card


def test_the_command_line_trains_shows_the_figures_and_prints_json(tmp_path: Path, llama: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", "tiny")
    data = str(write_rows(tmp_path / "rows.jsonl"))
    args = [recipe, "--base", str(llama), "--data", data, "--out", str(tmp_path / "out"), "--set", "trl.beta=0.2"]
    done = CliRunner().invoke(command, [*args, "--json"], catch_exceptions=False)
    training = json.loads(done.stdout)
    assert training["settings"]["recipe"]["trl"]["beta"] == 0.2
    assert training["settings"]["base"]["label"] == "llama"
    assert "step 2/2  loss" in done.stderr
    assert "margin" in done.stderr
    assert "nothing to do" in CliRunner().invoke(command, args, catch_exceptions=False).stderr
