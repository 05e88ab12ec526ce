"""Sampling among the most probable tokens gives the tokens that sorting the whole vocabulary gives."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.checkpoint.sampling import Sampling, SamplingRow, choose

CUTS = st.tuples(st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.01]), st.sampled_from([None, 1, 3, 8, 500]))


def by_full_sort(logits: torch.Tensor, row: SamplingRow) -> int:
    """Return a row's token [vocabulary] → token, from the definition."""
    probabilities = (logits.float() / row.sampling.temperature).softmax(-1).double().tolist()
    cut = row.sampling.top_p < 1 or row.sampling.top_k
    order = sorted(range(len(logits)), key=lambda token: -float(logits[token])) if cut else list(range(len(logits)))
    kept, mass = [], 0.0
    for rank, token in enumerate(order):
        if mass < row.sampling.top_p and rank < (row.sampling.top_k or len(order)):
            kept.append((token, probabilities[token]))
        mass += probabilities[token]
    point = row.random.random() * sum(probability for _, probability in kept)
    for token, probability in kept:
        point -= probability
        if point < 0:
            return token
    return kept[-1][0]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(2, 60),
    candidates=st.integers(1, 70),
    cuts=st.lists(CUTS, min_size=1, max_size=5),
    ties=st.booleans(),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_tokens_are_those_of_a_full_sort(
    seed: int, vocabulary: int, candidates: int, cuts: list[tuple[float, int | None]], ties: bool, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(len(cuts), vocabulary, generator=generator)
    logits = logits.round() if ties else logits

    def rows() -> list[SamplingRow]:
        return [
            SamplingRow([index], Sampling(9, temperature=0.8, top_p=top_p, top_k=top_k, seed=seed))
            for index, (top_p, top_k) in enumerate(cuts)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cst_bench.checkpoint.sampling._CANDIDATES", candidates)
        chosen = choose(logits, rows())
    assert chosen == [by_full_sort(line, row) for line, row in zip(logits, rows(), strict=True)]


def test_a_rows_token_does_not_depend_on_how_its_neighbours_are_sampled() -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).expand(3, 40)
    for seed in range(50):
        ways = [
            Sampling(9, temperature=1.0, seed=seed),
            Sampling(9, temperature=1.0, seed=seed, top_p=0.9),
            Sampling(9, temperature=1.0, seed=seed, top_k=5),
        ]
        alone = [choose(logits[:1], [SamplingRow([7], way)])[0] for way in ways]
        assert choose(logits, [SamplingRow([7], way) for way in ways]) == alone


def test_top_p_keeps_the_distribution_of_the_nucleus() -> None:
    probabilities = torch.tensor([0.05, 0.4, 0.25, 0.2, 0.1])
    draw = random.Random(0)
    rows = [SamplingRow([draw.randrange(10**9)], Sampling(9, temperature=1.0, top_p=0.8)) for _ in range(20_000)]
    tokens = torch.tensor(choose(probabilities.log().expand(len(rows), 5), rows))
    shares = tokens.bincount(minlength=5) / len(rows)
    assert shares.tolist() == pytest.approx([0, 0.4 / 0.85, 0.25 / 0.85, 0.2 / 0.85, 0], abs=0.02)
