"""The check of packed scoring sees what real documents do, and what fails after it is scored in another way."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.capabilities.likelihoods.kernels import KernelName
from cst_bench.capabilities.likelihoods.planning import Group, make_plan
from cst_bench.capabilities.likelihoods.prefix_attention import ForestAttention, KeysValues
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, PrefixPack, next_pack
from cst_bench.capabilities.likelihoods.scorer import Requests, Scored, Scorer, UnsupportedModelError
from cst_bench.capabilities.likelihoods.selfcheck import check_work, disagreement, make_probe
from tests.capabilities.likelihoods.models import Request, make_requests, stock, tiny
from tests.checkpoints import family_tokenizer

Shift = Callable[[int, int], int]
"""Position of a row and its number → the position it is given."""


def packed(model: Any, requests: list[Request], **rest: Any) -> tuple[CstHFLM, list[Scored]]:
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), **{"max_length": 100, "batch_size": 4, **rest})
    return lm, lm._loglikelihood_tokens(requests, disable_tqdm=True)


def misplace(monkeypatch: pytest.MonkeyPatch, shift: Shift) -> None:
    """The one seam: rows at wrong positions."""

    def shifted(groups: list[Group], cursor: Cursor, budget: int) -> PrefixPack:
        pack = next_pack(groups, cursor, budget)
        pack.positions = [shift(position, row) for row, position in enumerate(pack.positions)]
        return pack

    monkeypatch.setattr("cst_bench.capabilities.likelihoods.scorer.next_pack", shifted)


FAULTS: dict[str, Shift] = {
    "rows one too far in long documents": lambda position, row: position + (position > 70),
    "rows one too far in large passes": lambda position, row: position + (row > 300),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_short_documents_or_small_passes_do_not_show_are_seen(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, requests = tiny("llama"), make_requests(seed=3, documents=40)
    misplace(monkeypatch, FAULTS[fault])
    lm, answers = packed(model, requests)
    assert "differ by up to" in str(lm.fallback_reason)
    assert answers == stock(model, requests)


@pytest.mark.parametrize("seed", range(3))
def test_a_fault_near_the_noise_of_bf16_is_seen_and_the_noise_is_not_taken_for_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, requests = tiny("llama").to(torch.bfloat16), make_requests(seed=seed, documents=40)
    assert packed(model, requests)[0].fallback_reason is None
    misplace(monkeypatch, lambda position, row: position + (position > 20))
    assert "differ by up to" in str(packed(model, requests)[0].fallback_reason)


def test_the_work_of_the_check_is_what_the_model_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    requests = [(context, continuation) for _, context, continuation in make_requests(seed=3, documents=40)]
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), max_length=100, batch_size=4)
    scorer = lm.unchecked_scorer()
    assert scorer is not None
    by_stock: list[torch.Tensor] = []
    call = lm._model_call

    def recorded(inputs: torch.Tensor, **rest: Any) -> Any:
        by_stock.append(inputs)
        return call(inputs, **rest)

    monkeypatch.setattr(lm, "_model_call", recorded)
    asked: list[int] = []

    def by_lm(part: Requests, batch: int) -> list[Scored]:
        asked.extend(min(len(context) + len(continuation) - 1, 100) for context, continuation in part)
        return lm.stock_pairs(part, batch)

    assert disagreement(scorer, requests, by_lm) is None
    work = check_work(requests, 100)
    assert work.tokens == scorer.tokens + sum(asked)
    assert work.largest_pass == max(inputs.numel() for inputs in by_stock)


def test_greedy_flags_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: a scorer that says of each answer whether it is not greedy."""
    read = Scorer._read

    def inverted(self: Scorer, pack: PrefixPack, logits: torch.Tensor) -> dict[int, Scored]:
        return {request: (value, not greedy) for request, (value, greedy) in read(self, pack, logits).items()}

    monkeypatch.setattr(Scorer, "_read", inverted)
    model, requests = tiny("llama"), make_requests(seed=4)
    lm, answers = packed(model, requests)
    assert lm.fallback_reason == "its greedy tokens differ when documents share a pass"
    assert answers == stock(model, requests)


def test_margins_tell_how_firm_a_greedy_flag_is() -> None:
    scorer = Scorer(tiny("llama"), 100, 400, "documents")
    scorer.margins = {}
    requests = [(context, continuation) for _, context, continuation in make_requests(seed=5)]
    answers = scorer.score(requests)
    assert scorer.margins.keys() == set(range(len(requests)))
    assert [greedy for _, greedy in answers] == [scorer.margins[index] >= 0 for index in range(len(requests))]


def fail_after(monkeypatch: pytest.MonkeyPatch, rows: int, kernels: set[KernelName], error: Exception) -> None:
    """The one seam: a forward pass that fails above a number of rows, as one does that compiles for them."""
    forward = Scorer._forward

    def faulty(self: Scorer, pack: PrefixPack, kept: list[KeysValues]) -> tuple[dict[int, Scored], ForestAttention]:
        if self.margins is None and self.kernel in kernels and self.tokens > rows:
            raise error
        return forward(self, pack, kept)

    monkeypatch.setattr(Scorer, "_forward", faulty)


ERRORS = [UnsupportedModelError("its attention uses sinks"), RuntimeError("NoValidChoicesError: no choices")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("failing", [{"documents"}, {"documents", "masked"}])
def test_a_kernel_that_fails_after_the_check_loses_nothing(
    error: Exception, failing: set[KernelName], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="cst_bench.capabilities.likelihoods.cst_hf")
    monkeypatch.setattr("cst_bench.capabilities.likelihoods.cst_hf.kernels_for", lambda device: ["documents", "masked"])
    model = tiny("llama")
    requests: list[Any] = [
        ((f"text {index}", ""), context, continuation)
        for index, (_, context, continuation) in enumerate(make_requests(seed=6, documents=40))
    ]
    theirs = stock(model, requests)
    fail_after(monkeypatch, 500, failing, error)
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), max_length=100, batch_size=4, token_budget=200)
    reported: Counter[str] = Counter()
    monkeypatch.setattr(lm.cache_hook, "add_partial", lambda _, texts, answer: reported.update([texts[0]]))
    for _ in range(2):
        answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
        assert [value for value, _ in answers] == pytest.approx([value for value, _ in theirs], abs=1e-4)
        assert [greedy for _, greedy in answers] == [greedy for _, greedy in theirs]
    assert set(reported.values()) == {2}
    assert len(reported) == len(requests)
    assert lm.forwarded_tokens > 500
    messages = [r.getMessage() for r in caplog.records if r.name.endswith("cst_hf")]
    assert str(error) in messages[0]
    assert "'masked' instead of 'documents'" in messages[0]
    if "masked" in failing:
        assert str(error) in str(lm.fallback_reason)
        assert len(messages) == 2
    else:
        assert lm.fallback_reason is None
        assert len(messages) == 1


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_a_probe_has_whole_documents_the_longest_among_them(seed: int, documents: int) -> None:
    requests = [(context, continuation) for _, context, continuation in make_requests(seed, documents)]
    random.Random(seed).shuffle(requests)
    probe = make_probe(requests, 100)

    def rows(those: Any) -> dict[tuple[int, ...], int]:
        return {d.context: d.rows for group in make_plan(those, 100) for d in group.documents}

    everything, chosen = rows(requests), rows(probe.requests)
    assert chosen.items() <= everything.items()
    assert len(chosen) >= min(5, len(everything))
    assert sum(chosen.values()) >= min(256, sum(everything.values()))
    assert max(chosen.values()) == max(everything.values())
    document = {
        t.request: d.context for group in make_plan(probe.requests, 100) for d in group.documents for t in d.targets
    }
    compared = Counter(document[index] for index in probe.compared)
    assert len(compared) == min(5, len(everything))
    assert compared.keys() <= chosen.keys()
    assert max(everything[context] for context in compared) == max(everything.values())
    assert len(set(probe.compared)) == len(probe.compared)
    assert max(compared.values()) <= 2
