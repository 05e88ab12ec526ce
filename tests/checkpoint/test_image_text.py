"""Image-text models are loaded to continue text: the tokens of `generate`, the log-likelihoods of lm-eval's `hf`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.comparison import compare
from cst_bench.capabilities.evaluation import scoring_model
from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_chat, load_checkpoint
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.model_class import auto_class
from cst_bench.errors import UserError
from cst_bench.progress import Silent
from tests.capabilities.likelihoods.models import make_requests, stock
from tests.checkpoint.test_generation import GREEDY, by_transformers, prompts
from tests.checkpoints import make_adapter, make_checkpoint, make_image_text_checkpoint

FALLBACK = {"llama4": "it has layers other than full and sliding attention"}
"""Architectures that are scored by stock `hf`, with the reason."""


def load(folder: Path) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(name=str(folder), batch_size=3))


@pytest.mark.parametrize("architecture", ["mistral3", "gemma3", "qwen2_5_vl", "llava", "llama4"])
def test_it_generates_and_scores_text(architecture: str, tmp_path: Path) -> None:
    checkpoint = load(make_image_text_checkpoint(tmp_path / architecture, architecture))
    with Generator(checkpoint) as generator:
        responses = generator.generate(prompts(checkpoint), GREEDY)
    expected = [by_transformers(checkpoint, prompt) for prompt in prompts(checkpoint)]
    stops = checkpoint.chat.stop_ids
    assert [response.ids for response in responses] == [ids[:-1] if ids[-1] in stops else ids for ids in expected]
    requests = make_requests(seed=1)
    lm = scoring_model(checkpoint)
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason == FALLBACK.get(architecture)
    result = compare(answers, stock(checkpoint.model, requests, max_length=checkpoint.context_length))
    assert result.max_abs_diff < 1e-4
    assert result.greedy_mismatches == 0


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [("paligemma", "tokens of its prompt attend to later ones"), ("blip-2", "it needs pixel_values with each input")],
)
def test_what_cannot_continue_text_is_one_message(architecture: str, reason: str, tmp_path: Path) -> None:
    folder = make_image_text_checkpoint(tmp_path / architecture, architecture)
    with pytest.raises(UserError, match=f"cannot be evaluated on text: {reason}$"):
        load(folder)


def test_a_text_model_and_an_unknown_one_are_left_to_the_causal_class(tmp_path: Path) -> None:
    assert auto_class(make_checkpoint(tmp_path / "text"), trust_remote_code=False).__name__ == "AutoModelForCausalLM"
    image_text = make_image_text_checkpoint(tmp_path / "both", "mistral3")
    assert auto_class(image_text, trust_remote_code=False).__name__ == "AutoModelForImageTextToText"


def test_the_end_token_is_read_from_the_text_model_s_config(tmp_path: Path) -> None:
    folder = make_image_text_checkpoint(tmp_path / "model", "mistral3", generation_config=False)
    files = find_checkpoint(CheckpointOptions(name=str(folder)))
    chat = load_chat(files)
    assert chat.tokenizer.eos_token_id in chat.stop_ids
    EvaluatedModel(files.options, Silent()).pass_gate()


def test_its_adapter_is_loaded_on_it(tmp_path: Path) -> None:
    base = make_image_text_checkpoint(tmp_path / "base", "mistral3")
    checkpoint = load(make_adapter(tmp_path / "adapter", base))
    plain = load(base)
    with Generator(checkpoint) as generator, Generator(plain) as other:
        adapted, unadapted = (each.generate(prompts(plain), GREEDY) for each in (generator, other))
    assert [response.ids for response in adapted] != [response.ids for response in unadapted]
