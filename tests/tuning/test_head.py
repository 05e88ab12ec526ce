"""The head of packed training on a CPU against TRL's: the same numbers and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl.kernels import ChunkedLogProbFunction

from cst_bench.tuning.packed import preference_head as head
from cst_bench.tuning.packed.preference_head import TargetLogProbs
from tests.numerics import assert_as_exact

OUTPUTS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def inputs(rows: int, vocabulary: int, bias: bool, trained: bool) -> list[Any]:
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 24, generator=draw).requires_grad_()
    weight = torch.randn(vocabulary, 24, generator=draw).requires_grad_(trained)
    offset = torch.randn(vocabulary, generator=draw).requires_grad_(trained) if bias else None
    return [hidden, weight, offset, torch.randint(0, vocabulary, (rows,), generator=draw)]


def applied(function: Any, *arguments: Any) -> Any:
    return function.apply(*arguments)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 50), (300, 3000), (7, 300_000)])
def test_numbers_and_gradients_are_those_of_trl(rows: int, vocabulary: int, bias: bool, trained: bool) -> None:
    ours, theirs = inputs(rows, vocabulary, bias, trained), inputs(rows, vocabulary, bias, trained)
    exact: list[Any] = [None if tensor is None else tensor.detach().double() for tensor in ours[:3]]
    for tensor, single in zip(exact, ours[:3], strict=True):
        if tensor is not None:
            tensor.requires_grad_(single.requires_grad)
    mine = applied(TargetLogProbs, *ours, True)
    stock = applied(ChunkedLogProbFunction, *theirs, 1.0, 8192, None, 1.0, OUTPUTS)
    reference = exact_results(exact[0], exact[1], exact[2], ours[3])
    for index, name in enumerate(("log_probs", *OUTPUTS[:3])):
        terms = reference[4] if name == "mean_logits" else None
        assert_as_exact(mine[index], stock[index], reference[index], name, terms=terms)
    assert torch.equal(mine[4], stock[4])
    weights = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    for values in (mine[0], stock[0], reference[0]):
        (values * weights).sum().backward()
    for index, name in enumerate(("hidden", "weight", "bias")):
        if ours[index] is not None and ours[index].requires_grad:
            assert_as_exact(ours[index].grad, theirs[index].grad, exact[index].grad, f"gradient of {name}")
    assert (ours[1].grad is None) is not trained


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 50), (300, 3000), (7, 300_000)])
def test_in_bfloat16_it_is_nearer_to_the_exact_numbers_than_logits_in_bfloat16(rows: int, vocabulary: int) -> None:
    hidden, weight, _, targets = inputs(rows, vocabulary, False, False)
    hidden, weight = hidden.detach().bfloat16().requires_grad_(), weight.bfloat16()
    plain, exact = hidden.detach().clone().requires_grad_(), hidden.detach().double().requires_grad_()
    ours = applied(TargetLogProbs, hidden, weight, None, targets, True)[0]
    logits = (plain @ weight.t()).float()
    stock = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    reference = exact_results(exact, weight.double(), None, targets)[0]
    assert (ours - reference).norm() <= 1.5 * (stock - reference).norm() + 1e-3
    for values in (ours, stock, reference):
        values.sum().backward()
    assert_as_exact(hidden.grad, plain.grad, exact.grad)


def exact_results(hidden: Any, weight: Any, bias: Any, targets: torch.Tensor) -> list[torch.Tensor]:
    """Return log-probability, entropy, log of the sum of squared probabilities, mean logit, and top logit."""
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    logs = logits.log_softmax(-1)
    return [
        logs.gather(1, targets[:, None])[:, 0],
        -(logs.exp() * logs).sum(-1),
        (2 * logs).logsumexp(-1),
        logits.mean(-1),
        logits.amax(-1),
    ]


def test_a_tie_with_an_earlier_token_is_not_a_top_prediction() -> None:
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [3.0], [3.0]])
    results = applied(TargetLogProbs, hidden, weight, None, torch.tensor([1, 2]), False)
    assert results[4].tolist() == [True, False]


def test_kept_or_not_the_numbers_are_the_same() -> None:
    arguments = inputs(5, 20, False, False)
    kept = applied(TargetLogProbs, *arguments, True)
    with torch.no_grad():
        not_kept = applied(TargetLogProbs, *arguments, False)
    assert not not_kept[0].requires_grad
    for values, others in zip(not_kept, kept, strict=True):
        assert torch.equal(values, others)


@pytest.mark.parametrize("architecture", ["llama", "gemma", "cohere"])
def test_changed_logits_and_large_vocabularies_are_left_to_trl(architecture: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    settings |= {"intermediate_size": 8, "num_key_value_heads": 2, "head_dim": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings))
    assert head.has_plain_head(model) is (architecture != "cohere")  # which scales its logits
    assert not head.has_plain_head(model.to(torch.bfloat16))  # its head trains
    model.requires_grad_(False)
    assert head.has_plain_head(model) is (architecture != "cohere")
    assert not head.has_plain_head(model.to(torch.float16))
    assert head.fits(1000, 60_000)
    assert not head.fits(1000, 128_256)
