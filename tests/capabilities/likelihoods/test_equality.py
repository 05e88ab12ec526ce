"""In fp32, packed scoring gives stock lm-eval's answers, whatever the model and the requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.comparison import compare, unique_tokens
from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.capabilities.likelihoods.kernels import KernelName
from cst_bench.capabilities.likelihoods.scorer import Scored, Scorer
from tests.capabilities.likelihoods.models import PACKED, Request, make_requests, stock, tiny
from tests.checkpoints import family_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def packed(model: PreTrainedModel, **rest: Any) -> CstHFLM:
    settings = {"max_length": 100, "batch_size": 4, "token_budget": 150, **rest}
    return CstHFLM(model, tokenizer=family_tokenizer("llama"), **settings)


def assert_same(ours: Sequence[Scored], theirs: Sequence[Scored]) -> None:
    result = compare(ours, theirs)
    assert result.max_abs_diff < 1e-4
    assert result.greedy_mismatches == 0


@pytest.mark.parametrize("name", PACKED)
def test_answers_are_those_of_stock(name: str) -> None:
    model, requests = tiny(name), make_requests(seed=1)
    lm = packed(model)
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    assert_same(answers, stock(model, requests))
    assert lm.forwarded_tokens <= 1.02 * unique_tokens([(c, t) for _, c, t in requests], 100)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt-oss", "gemma3", "gpt2", "deepseek"])
@pytest.mark.parametrize("kernel", ["masked", "flex"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # FlexAttention warns that it isn't compiled
def test_the_kernels_for_a_gpu_give_the_same(name: str, kernel: KernelName) -> None:
    model, requests = tiny(name), make_requests(seed=2)
    scorer = Scorer(model, 100, 150, kernel)
    assert_same(scorer.score([(c, t) for _, c, t in requests]), stock(model, requests))


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_the_adapter_is_scored_too(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    plain, requests = tiny(name), make_requests(seed=3)
    without = stock(plain, requests)
    model = get_peft_model(plain, config).eval()
    lm = packed(model)
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    assert_same(answers, stock(model, requests))
    assert compare(answers, without).max_abs_diff > 0.1


_LLAMA = tiny("llama")
_SLIDING = tiny("mistral")
_IDS = st.lists(st.integers(0, 3), min_size=1, max_size=45)  # few different tokens, so that prefixes are shared


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    contexts=st.lists(_IDS, min_size=1, max_size=5),
    continuations=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5),
    prefix=st.integers(0, 50),
    budget=st.integers(1, 300),
    max_length=st.integers(8, 120),
    seed=st.integers(0, 9),
)
def test_any_requests_are_scored_as_by_stock(
    contexts: list[list[int]],
    continuations: list[list[int]],
    prefix: int,
    budget: int,
    max_length: int,
    seed: int,
) -> None:
    """Compare with stock without its cache of logits, which is wrong in lm-eval 0.4.13.

    Of two requests that read the same tokens and split them at different places, it reads one at the wrong position.
    """
    draw = random.Random(seed)
    requests: list[Request] = [(None, [1] * prefix + c, t) for c in contexts for t in continuations]
    draw.shuffle(requests)
    model = _SLIDING if seed % 2 else _LLAMA
    ours = Scorer(model, max_length, budget, "documents").score([(c, t) for _, c, t in requests])
    assert_same(ours, stock(model, requests, max_length, logits_cache=False))


def test_requests_that_split_the_same_tokens_elsewhere_are_distinguished() -> None:
    requests: list[Request] = [(None, [1], [0, 0]), (None, [1, 0], [0])]
    (whole, _), (last, _) = packed(_LLAMA)._loglikelihood_tokens(requests, disable_tqdm=True)
    ((first, _),) = stock(_LLAMA, [(None, [1], [0])])
    assert whole == pytest.approx(first + last, abs=1e-4)


def instances(kind: str, arguments: Sequence[tuple[str, ...]]) -> list[Instance]:
    return [Instance(kind, {}, texts, i) for i, texts in enumerate(arguments)]


TEXTS = [
    ("What colour is the harbour?", " blue"),
    ("What colour is the harbour?", " grey"),
    ("What colour is the harbour? ", "blue"),
    ("", "Hello!"),
    ("Name a bird.\n", "gull"),
    ("Name a bird.", "  "),
    ("<|begin|>Name a bird.", " gull"),
]


@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_texts_are_encoded_and_scored_as_by_stock(family: str, add_bos: bool | None) -> None:
    arguments = {"tokenizer": family_tokenizer(family), "max_length": 100, "batch_size": 4, "add_bos_token": add_bos}
    requests = instances("loglikelihood", TEXTS)
    theirs = HFLM(_LLAMA, **arguments).loglikelihood(requests, disable_tqdm=True)
    lm = CstHFLM(_LLAMA, **arguments)
    assert_same(lm.loglikelihood(requests, disable_tqdm=True), theirs)
    assert lm._encoded.get(TEXTS[0][0]) is None


def test_rolling_likelihoods_are_those_of_stock() -> None:
    requests = instances("loglikelihood_rolling", [("The harbour is blue in the morning. " * 9,), ("Hello!",), ("",)])
    arguments = {"tokenizer": family_tokenizer("llama"), "max_length": 20, "batch_size": 2}
    theirs = HFLM(_LLAMA, **arguments).loglikelihood_rolling(requests, disable_tqdm=True)
    lm = CstHFLM(_LLAMA, **arguments)
    assert lm.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(theirs, abs=1e-3)
    assert lm.batch_size == 2


def test_in_bf16_the_error_is_no_worse_than_stocks() -> None:
    requests = make_requests(seed=4, documents=40)
    exact = stock(tiny("llama"), requests)
    model = tiny("llama").to(torch.bfloat16)
    theirs = stock(model, requests, softmax_dtype="float32")
    lm = packed(model)
    ours = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    assert compare(ours, exact).mean_abs_diff <= 1.2 * compare(theirs, exact).mean_abs_diff


def test_the_model_gets_its_own_attention_back() -> None:
    model = tiny("gemma3")
    before = model.config._attn_implementation
    packed(model)._loglikelihood_tokens(make_requests(seed=5), disable_tqdm=True)
    assert model.config._attn_implementation == before == "sdpa"
