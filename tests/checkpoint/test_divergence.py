"""KL divergence from the base: by its definition, over the whole vocabulary, at each token of the model's response."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_chat, load_checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.divergence import find_kl_base, require_same_vocabulary, token_divergences
from cst_bench.checkpoint.engine import GeneratedTokens
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.loading import Checkpoint
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.errors import UserError
from tests.checkpoints import PROMPTS, lora_config, make_adapter, make_checkpoint


def load(folder: Path, *, merge: bool = True) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(name=str(folder), merge=merge))


def responses(checkpoint: Checkpoint, max_tokens: int = 12) -> list[tuple[list[int], GeneratedTokens]]:
    prompts = [checkpoint.chat.prompt_ids(conversation("Be brief.", prompt)) for prompt in PROMPTS]
    with Generator(checkpoint) as generator:
        return list(zip(prompts, generator.generate(prompts, Sampling(max_tokens)), strict=True))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("kl") / "llama")


@pytest.fixture(scope="module")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("kl") / "adapter", llama)


def test_of_a_model_with_itself_is_exactly_0(llama: Path) -> None:
    model, same = load(llama), load(llama)
    for prompt, response in responses(model):
        assert token_divergences(model, same, prompt, response) == [0.0] * response.generated_tokens


def test_of_an_adapter_is_the_full_sum_over_the_vocabulary_at_each_step(llama: Path, adapter: Path) -> None:
    """One forward pass for each token, and the sum p (log p - log q) in float64."""
    model, base = load(adapter), load(llama)
    ended = 0
    for prompt, response in responses(model):
        values = token_divergences(model, base, prompt, response)
        expected = []
        for at in range(response.generated_tokens):
            ids = torch.tensor([[*prompt, *response.ids[:at]]])
            with torch.inference_mode():
                p, q = (one.model(input_ids=ids).logits[0, -1].double().softmax(-1) for one in (model, base))
            expected.append(float((p * (p.log() - q.log())).sum()))
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert min(values) > 0.001  # the adapter's weights are large
        ended += response.stop_reason == "stop"
    assert 0 < ended < len(PROMPTS)  # the token that ends a response is one of its positions


def test_the_direction_is_from_the_model_to_its_base(llama: Path, adapter: Path) -> None:
    model, base = load(adapter), load(llama)
    prompt, response = responses(model)[0]
    forward, backward = (
        token_divergences(model, base, prompt, response),
        token_divergences(base, model, prompt, response),
    )
    assert forward != pytest.approx(backward, rel=0.01)


def test_merged_or_apart_an_adapter_has_the_same_divergence(llama: Path, adapter: Path) -> None:
    merged, apart, base = load(adapter), load(adapter, merge=False), load(llama)
    prompt, response = responses(merged)[1]
    values = [token_divergences(model, base, prompt, response) for model in (merged, apart)]
    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-5)


def test_learned_tokens_before_the_prompt_are_not_counted(llama: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig

    soft = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model, base = load(make_adapter(tmp_path / "soft", llama, adapter=soft)), load(llama)
    prompt, response = responses(model)[0]
    values = token_divergences(model, base, prompt, response)
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        p, q = (one.model(input_ids=ids).logits[0, -1].double().log_softmax(-1) for one in (model, base))
    assert len(values) == response.generated_tokens
    assert values[0] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)


def test_logits_that_are_not_numbers_are_not_taken_for_equal(llama: Path) -> None:
    model, broken = load(llama), load(llama)
    prompt, response = responses(model)[0]
    with torch.no_grad():
        broken.model.get_output_embeddings().weight[:] = float("nan")
    values = token_divergences(model, broken, prompt, response)
    assert all(value != value for value in values)


def test_auto_is_the_base_of_an_adapter(llama: Path, adapter: Path) -> None:
    base = find_kl_base(find_checkpoint(CheckpointOptions(name=str(adapter))), "auto")
    assert base.folder == llama
    assert base.adapter is None
    assert base.label == base.identity.label == "llama"


def trained_on(folder: Path, base: str, base_sha256: str) -> Path:
    """Writes a whole model with the `training.json` of a training on a base, as far as evaluation reads it."""
    make_checkpoint(folder, seed=2)
    settings = {
        "method": "cst",
        "recipe": {"name": "own", "sha256": "0" * 64},
        "seed": 0,
        "data": {"sha256": "1" * 64},
        "base": {"label": base, "weights_sha256": base_sha256, "system_as": "system"},
    }
    (folder / "training.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_auto_is_what_a_whole_model_was_trained_on(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    sha256 = str(find_checkpoint(CheckpointOptions(name="llama")).identity.weights_sha256)
    folder = trained_on(tmp_path / "trained", "llama", sha256)
    assert find_kl_base(find_checkpoint(CheckpointOptions(name=str(folder))), "auto").folder == llama


def test_auto_is_not_another_model_of_that_name(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama.parent)
    for name, message in (("llama", "was trained on other weights"), ("nowhere", "could not find the base")):
        folder = trained_on(tmp_path / name, name, "0" * 64)
        with pytest.raises(UserError, match=f"{message}.*--kl-base CHECKPOINT"):
            find_kl_base(find_checkpoint(CheckpointOptions(name=str(folder))), "auto")


def test_auto_of_a_model_that_says_nothing_of_its_base_is_refused(llama: Path) -> None:
    with pytest.raises(UserError, match="--kl-base CHECKPOINT"):
        find_kl_base(find_checkpoint(CheckpointOptions(name=str(llama))), "auto")


def test_other_tokens_are_refused(llama: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "qwen2")
    wider = make_checkpoint(tmp_path / "wider", vocab_size=416)
    files = find_checkpoint(CheckpointOptions(name=str(llama)))
    for folder in (other, wider):
        base = find_checkpoint(CheckpointOptions(name=str(folder)))
        with pytest.raises(UserError, match="KL divergence is between distributions over the same tokens"):
            require_same_vocabulary(files, load_chat(files), base, load_chat(base))


def test_an_adapter_that_is_still_the_identity_has_none(llama: Path, tmp_path: Path) -> None:
    identity = make_adapter(tmp_path / "identity", llama, adapter=lora_config(init_lora_weights=True))
    model, base = load(identity), load(llama)
    prompt, response = responses(model)[0]
    assert token_divergences(model, base, prompt, response) == [0.0] * response.generated_tokens
