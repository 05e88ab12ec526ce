"""In bf16, packed scoring and the stock method that it falls back to take the softmax in the same precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.comparison import compare
from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.capabilities.likelihoods.scorer import Scored
from cst_bench.checkpoint.attention_choice import EAGER, attention_swapped
from tests.capabilities.likelihoods.models import Request, make_requests, stock, tiny
from tests.checkpoints import family_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score(model: PreTrainedModel, requests: list[Request], **rest: Any) -> tuple[CstHFLM, list[Scored]]:
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), max_length=100, batch_size=4, **rest)
    return lm, lm._loglikelihood_tokens(requests, disable_tqdm=True)


def in_bf16(answers: list[Scored]) -> float:
    """Return the share of log-likelihoods that are numbers of bf16."""
    exact = [torch.tensor(value).bfloat16().item() == value for value, _ in answers]
    return sum(exact) / len(exact)


def test_a_forced_fallback_in_bf16_gives_the_packed_numbers_within_the_noise_of_stock() -> None:
    model, requests = tiny("llama").to(torch.bfloat16), make_requests(seed=7, documents=40)
    lm, ours = score(model, requests)
    assert lm.fallback_reason is None
    model.is_quantized = True
    fallen, theirs = score(model, requests)
    assert fallen.fallback_reason == "its weights are quantized"
    noise = [
        compare(theirs, stock(model, requests, batch_size=size, softmax_dtype="float32")).max_abs_diff
        for size in (1, 2, 8, 16)
    ]
    with attention_swapped(model, EAGER):  # SDPA may round the same in batches of every size
        noise.append(compare(theirs, stock(model, requests, softmax_dtype="float32")).max_abs_diff)
    assert compare(ours, theirs).max_abs_diff <= 3 * max(*noise, torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-oss", "bloom"])
def test_log_likelihoods_of_a_bf16_model_are_not_rounded_to_bf16(name: str) -> None:
    model, requests = tiny(name).to(torch.bfloat16), make_requests(seed=8)
    lm, answers = score(model, requests)
    assert (lm.fallback_reason is None) == (name != "bloom")
    assert in_bf16(answers) < 0.5
    assert in_bf16(stock(model, requests)) == 1


@pytest.mark.parametrize(("dtype", "softmax"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_the_softmax_is_in_fp32_or_the_wider_dtype_of_the_model(dtype: torch.dtype, softmax: torch.dtype) -> None:
    model = tiny("llama").to(dtype)
    lm, _ = score(model, make_requests(seed=9, documents=2))
    assert lm.softmax_dtype == softmax


def test_a_requested_softmax_holds_for_both_methods() -> None:
    model, requests = tiny("llama").to(torch.bfloat16), make_requests(seed=10)
    lm, answers = score(model, requests, softmax_dtype="bfloat16")
    assert lm.fallback_reason is None
    assert lm.softmax_dtype == torch.bfloat16
    single = [answer for answer, (_, _, continuation) in zip(answers, requests, strict=True) if len(continuation) == 1]
    assert in_bf16(single) == 1
