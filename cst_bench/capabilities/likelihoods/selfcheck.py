"""Check packed scoring against the stock scorer on a few random requests, before the real ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from cst_bench.capabilities.likelihoods.scorer import Requests, Scored, Scorer

_TOLERANCE = 1e-3
"""Largest relative difference in fp32 and fp64."""
_ROUNDINGS = 4
"""Largest relative difference in lower precision, in multiples of its epsilon."""


def probe_requests(vocabulary: int, max_length: int) -> Requests:
    """Make requests of random tokens: a group with a prefix, single documents, nested and forked continuations."""
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(count)]

    room = max(1, max_length - 8)
    prefix = tokens(min(40, max(0, room - 8)))
    contexts = [prefix + tokens(min(length, room)) for length in (5, 8, 3)] + [tokens(min(n, room)) for n in (17, 1)]
    requests = []
    for context in contexts:
        ending = tokens(4)
        for continuation in (ending[:1], ending, [*ending[:2], *tokens(2)], tokens(3)):
            requests.append((context[-max_length:], continuation[:max_length]))
    return requests


def disagreement(scorer: Scorer, stock: Callable[[Requests], Sequence[Scored]], vocabulary: int) -> str | None:
    """Return how packed scoring differs from the stock scorer on the probe requests; None if they agree.

    Raises:
        UnsupportedModelError: the model's attention is not supported.
    """
    requests = probe_requests(vocabulary, scorer.max_length)
    budget, scorer.budget = scorer.budget, 64  # several packs, so that a prefix is kept from one to the next
    try:
        ours = scorer.score(requests)
    finally:
        scorer.budget = budget
    theirs = stock(requests)
    dtype = scorer.autocast_dtype or scorer.model.dtype
    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(dtype).eps)
    scale = sum(abs(value) for value, _ in theirs) / len(theirs)
    worst = max(abs(a - b) for (a, _), (b, _) in zip(ours, theirs))
    if worst <= tolerance * max(1.0, scale):
        return None
    return f"its log-likelihoods differ by up to {worst:.2g} when documents share a pass"
