"""The head of packed training on a CPU against TRL's own: the same numbers and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl.kernels import ChunkedLogProbFunction

from cst_bench.tuning.packed import preference_head as head
from cst_bench.tuning.packed.preference_head import TargetLogProbs

OUTPUTS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def inputs(rows: int, vocabulary: int, bias: bool, trained: bool) -> list[Any]:
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 24, generator=draw).requires_grad_()
    weight = torch.randn(vocabulary, 24, generator=draw).requires_grad_(trained)
    own = torch.randn(vocabulary, generator=draw).requires_grad_(trained) if bias else None
    return [hidden, weight, own, torch.randint(0, vocabulary, (rows,), generator=draw)]


def applied(function: Any, *arguments: Any) -> Any:
    return function.apply(*arguments)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 50), (300, 3000), (7, 300_000)])
def test_numbers_and_gradients_are_those_of_trl(rows: int, vocabulary: int, bias: bool, trained: bool) -> None:
    ours, theirs = inputs(rows, vocabulary, bias, trained), inputs(rows, vocabulary, bias, trained)
    found = applied(TargetLogProbs, *ours, True)
    stock = applied(ChunkedLogProbFunction, *theirs, 1.0, 8192, None, 1.0, OUTPUTS)
    for one, other in zip(found[:4], stock[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)
    assert torch.equal(found[4], stock[4])
    weights = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    for values in (found, stock):
        (values[0] * weights).sum().backward()
    exact = [one if one is None or not one.is_floating_point() else one.detach().double() for one in ours]
    for value, given in zip(exact[:3], ours[:3], strict=True):
        if value is not None:
            value.requires_grad_(given.requires_grad)
    logits = exact[0] @ exact[1].t() + (0 if exact[2] is None else exact[2])
    (logits.log_softmax(-1).gather(1, exact[3][:, None])[:, 0] * weights).sum().backward()
    for mine, other, true in zip(ours[:3], theirs[:3], exact[:3], strict=True):
        if mine is not None and mine.requires_grad:
            of_ours, of_stock = (float((one.grad - true.grad).norm() / true.grad.norm()) for one in (mine, other))
            assert of_ours < max(2 * of_stock, 1e-6)
    assert (ours[1].grad is None) is not trained


def test_a_tie_with_an_earlier_token_is_no_top_prediction() -> None:
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [3.0], [3.0]])
    found = applied(TargetLogProbs, hidden, weight, None, torch.tensor([1, 2]), False)
    assert found[4].tolist() == [True, False]


def test_kept_or_not_the_numbers_are_the_same() -> None:
    given = inputs(5, 20, False, False)
    kept = applied(TargetLogProbs, *given, True)
    with torch.no_grad():
        found = applied(TargetLogProbs, *given, False)
    assert not found[0].requires_grad
    for one, other in zip(found, kept, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("architecture", ["llama", "gemma", "cohere"])
def test_changed_logits_and_large_vocabularies_are_left_to_trl(architecture: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    settings |= {"intermediate_size": 8, "num_key_value_heads": 2, "head_dim": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings))
    assert head.has_plain_head(model) is (architecture != "cohere")  # which scales its logits
    assert not head.has_plain_head(model.to(torch.bfloat16))
    assert head.fits(1000, 60_000)
    assert not head.fits(1000, 128_256)
