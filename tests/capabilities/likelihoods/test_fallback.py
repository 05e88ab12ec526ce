"""Models and requests that cannot be scored packed are detected, left to stock lm-eval, and reported once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.capabilities.likelihoods.eligibility import unsupported_model
from cst_bench.capabilities.likelihoods.planning import Group
from cst_bench.capabilities.likelihoods.prefix_attention import ForestAttention, KeysValues
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, PrefixPack, next_pack
from cst_bench.capabilities.likelihoods.scorer import Requests, Scored, Scorer
from cst_bench.capabilities.likelihoods.selfcheck import Stock, disagreement
from tests.capabilities.likelihoods.models import STOCK, make_requests, stock, tiny
from tests.checkpoints import family_tokenizer, make_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def packed(model: PreTrainedModel, **rest: Any) -> CstHFLM:
    return CstHFLM(model, tokenizer=family_tokenizer("llama"), **{"max_length": 100, "batch_size": 4, **rest})


@pytest.mark.parametrize("name", STOCK)
def test_unsupported_models_are_scored_the_stock_way(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, requests = tiny(name), make_requests(seed=1)
    lm = packed(model)
    with caplog.at_level(logging.WARNING, "cst_bench.capabilities.likelihoods.cst_hf"):
        first = lm._loglikelihood_tokens(requests, disable_tqdm=True)
        lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is not None
    assert STOCK[name][2] in lm.fallback_reason
    assert [r.getMessage() for r in caplog.records if r.name == "cst_bench.capabilities.likelihoods.cst_hf"] == [
        f"scoring with lm-eval's stock method, which is slower: {lm.fallback_reason}"
    ]
    assert first == stock(model, requests)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_dynamic_rope_is_left_to_stock_only_beyond_the_original_length(kind: str) -> None:
    rope: dict[str, object] = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    config: dict[str, Any] = {"num_key_value_heads": 2, "max_position_embeddings": 60}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 60}
        config["max_position_embeddings"] = 240
    model = make_model("llama", rope_parameters=rope, **config)
    requests = make_requests(seed=2)
    short = [request for request in requests if len(request[1]) + len(request[2]) <= 61]
    lm = packed(model)
    lm._loglikelihood_tokens(short, disable_tqdm=True)
    reason: str | None = lm.fallback_reason
    assert reason is None
    assert lm.forwarded_tokens > 0
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason == "its rope depends on the batch beyond 60 tokens"
    assert answers == stock(model, requests)


def test_quantized_models_are_left_to_stock() -> None:
    model = tiny("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert unsupported_model(model) == "its weights are quantized"


def test_a_difference_in_the_self_check_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: positions that continue where they should start again at each branch."""

    def shifted(groups: list[Group], cursor: Cursor, budget: int) -> PrefixPack:
        pack = next_pack(groups, cursor, budget)
        pack.positions = [position + 3 * (row % 2) for row, position in enumerate(pack.positions)]
        return pack

    monkeypatch.setattr("cst_bench.capabilities.likelihoods.scorer.next_pack", shifted)
    requests = make_requests(seed=3)
    lm = packed(tiny("llama"))
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is not None
    assert "differ" in lm.fallback_reason
    assert answers == stock(tiny("llama"), requests)


def test_a_request_without_tokens_is_stocks_to_refuse() -> None:
    with pytest.raises(AssertionError):
        packed(tiny("llama"))._loglikelihood_tokens([(None, [1], [])], disable_tqdm=True)


@pytest.mark.parametrize("room", [1, 60, 200])
def test_when_memory_runs_short_passes_get_smaller_and_no_answer_is_lost(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one seam: a forward pass that fails above a number of tokens."""
    original, sizes = Scorer._forward, []

    def forward(self: Scorer, pack: PrefixPack, kept: list[KeysValues]) -> tuple[dict[int, Scored], ForestAttention]:
        if len(pack.ids) > room and len(pack.answers) > 1:
            raise RuntimeError("CUDA out of memory")
        sizes.append(len(pack.ids))
        return original(self, pack, kept)

    model, requests = tiny("llama"), make_requests(seed=4)
    theirs = stock(model, requests)
    monkeypatch.setattr(Scorer, "_forward", forward)
    reported: list[int] = []
    scorer = Scorer(model, 100, 4000, "documents")
    ours = scorer.score([(c, t) for _, c, t in requests], lambda index, _: reported.append(index))
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert sorted(reported) == list(range(len(requests)))
    assert scorer.budget == 4000


def test_another_error_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object) -> None:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(Scorer, "_forward", forward)
    with pytest.raises(RuntimeError, match="device-side"):
        Scorer(tiny("llama"), 100, 100, "documents").score([([1], [2])])


def test_kernels_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cst_bench.capabilities.likelihoods.cst_hf.kernels_for", lambda device: ["unknown", "masked"])
    tried: list[str] = []

    def check(scorer: Scorer, requests: Requests, stock: Stock) -> str | None:
        tried.append(scorer.kernel)
        return disagreement(scorer, requests, stock) if scorer.kernel == "masked" else "no such kernel"

    monkeypatch.setattr("cst_bench.capabilities.likelihoods.cst_hf.disagreement", check)
    lm = packed(tiny("llama"))
    lm._loglikelihood_tokens(make_requests(seed=6), disable_tqdm=True)
    assert tried == ["unknown", "masked"]
    assert lm.fallback_reason is None
