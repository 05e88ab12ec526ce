"""Check packed scoring against the stock scorer on a few of the documents that are about to be scored."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cst_bench.capabilities.likelihoods.planning import Group, PlannedDocument, make_plan, plan_tokens
from cst_bench.capabilities.likelihoods.scorer import Requests, Scored, Scorer
from cst_bench.checkpoint.attention_choice import EAGER, attention_swapped
from cst_bench.checkpoint.inspection import base_model

Stock = Callable[[Requests, int], Sequence[Scored]]
"""Stock scorer of requests, in batches of a size."""

_LONGEST, _RANDOM = 2, 3
"""Numbers of documents."""
_ROWS = 256
"""Fewest tokens, where there are so many: two blocks of FlexAttention."""
_COMPARED = 2
"""Most requests of a document that stock scores as well, one pass each."""
_BATCH = 4
_NOISE = 3
"""Largest difference, in multiples of stock's own between batch sizes or attention functions."""
_TOLERANCE = 1e-4
"""Difference in nats per token that always passes in fp32."""
_ROUNDINGS = 4
"""The same in lower precision, in multiples of its epsilon."""


@dataclass(frozen=True)
class Probe:
    """Requests of a few documents: all are scored packed, some also by stock."""

    requests: Requests
    compared: list[int]
    """Indices into them."""


def make_probe(requests: Requests, max_length: int) -> Probe:
    """Choose the two longest documents and three random ones, of which two share a prefix if any do.

    More are scored packed, but not compared, if these have too few tokens for a pass like those of the evaluation.

    Args:
        requests: As for `Scorer.score`.
        max_length: As for `Scorer`.
    """
    draw = random.Random(0)
    chosen, fillers = _choose(make_plan(requests, max_length), draw)
    indices = [target.request for document in (*chosen, *fillers) for target in document.targets]
    place = {index: number for number, index in enumerate(indices)}
    compared = [
        place[target.request]
        for document in chosen
        for target in draw.sample(document.targets, min(_COMPARED, len(document.targets)))
    ]
    return Probe([requests[index] for index in indices], compared)


def _choose(groups: list[Group], draw: random.Random) -> tuple[list[PlannedDocument], list[PlannedDocument]]:
    """Return the documents to compare, and more of them where these have too few tokens for a pass."""
    documents = [document for group in groups for document in group.documents]
    longest = sorted(range(len(documents)), key=lambda index: documents[index].rows)[-_LONGEST:]
    shared, start = [], 0
    for group in groups:
        if group.prefix:
            shared.append(range(start, start + len(group.documents)))
        start += len(group.documents)
    together = draw.sample(draw.choice(shared), 2) if shared else []
    chosen = {*longest, *together}
    others = [index for index in range(len(documents)) if index not in chosen]
    chosen.update(draw.sample(others, min(_LONGEST + _RANDOM - len(chosen), len(others))))
    rows = sum(documents[index].rows for index in chosen)
    fillers = []
    for index, document in enumerate(documents):
        if rows < _ROWS and index not in chosen:
            fillers.append(document)
            rows += document.rows
    return [documents[index] for index in sorted(chosen)], fillers


@dataclass(frozen=True)
class CheckWork:
    """Tokens that the model reads in the check, without repetitions in low precision."""

    tokens: int
    largest_pass: int
    """Tokens of the largest pass of stock, which has the logits of all of them."""


def check_work(requests: Requests, max_length: int) -> CheckWork:
    """Return the work of the check on these requests, where packed scoring agrees; arguments as for `make_probe`."""
    probe = make_probe(requests, max_length)
    packed = plan_tokens(make_plan(probe.requests, max_length))
    compared = [probe.requests[index] for index in probe.compared]
    lengths = [min(len(context) + len(continuation) - 1, max_length) for context, continuation in compared]
    return CheckWork(2 * packed + sum(lengths), min(_BATCH, len(lengths)) * max(lengths))


def disagreement(scorer: Scorer, requests: Requests, stock: Stock) -> str | None:
    """Return how packed scoring differs from the stock scorer on some of these requests; None if it agrees.

    They are scored in passes of the real size, and again in smaller ones, so that a prefix is kept between passes. The
    tolerance per token follows from how far stock's own results depend on its batch size and, in low precision, on its
    attention function. `is_greedy` is compared where no such difference could change it.

    Raises:
        UnsupportedModelError: the model's attention is not supported.
    """
    probe = make_probe(requests, scorer.max_length)
    compared = [probe.requests[index] for index in probe.compared]
    lengths = [len(continuation) for _, continuation in compared]
    theirs = stock(compared, _BATCH)
    rounding = torch.finfo(scorer.softmax_dtype).eps
    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(scorer.autocast_dtype or scorer.model.dtype).eps)
    scored = [_score(scorer, probe, budget) for budget in (scorer.budget, _smaller(scorer, probe))]
    noise = 0.0
    if any(_per_token(ours, theirs, lengths, rounding) > tolerance for ours, _ in scored):
        noise = _per_token(stock(compared, 1), theirs, lengths, rounding)
        if tolerance > _TOLERANCE:
            with attention_swapped(base_model(scorer.model), EAGER):
                noise = max(noise, _per_token(stock(compared, 1), theirs, lengths, rounding))
        tolerance = max(tolerance, _NOISE * noise)
    for ours, margins in scored:
        worst = _per_token(ours, theirs, lengths, rounding)
        if worst > tolerance:
            return (
                f"its log-likelihoods differ by up to {worst:.2g} a token when documents share a pass, "
                f"and by {noise:.2g} between stock's own ways"
            )
        for (_, greedy), (_, expected), margin, length in zip(ours, theirs, margins, lengths, strict=True):
            if greedy != expected and abs(margin) > 2 * tolerance * length:
                return "its greedy tokens differ when documents share a pass"
    return None


def _score(scorer: Scorer, probe: Probe, budget: int | None) -> tuple[list[Scored], list[float]]:
    """Return the answers to the compared requests, and the margins of their greedy flags, in nats."""
    original, scorer.budget, scorer.margins = scorer.budget, budget, {}
    try:
        answers = scorer.score(probe.requests)
        margins = scorer.margins
    finally:
        scorer.budget, scorer.margins = original, None
    return [answers[index] for index in probe.compared], [margins[index] for index in probe.compared]


def _smaller(scorer: Scorer, probe: Probe) -> int:
    """Return a budget that takes at least two passes for the probe."""
    groups = make_plan(probe.requests, scorer.max_length)
    rows = sum(document.rows for group in groups for document in group.documents)
    return max(1, min(scorer.budget or rows, rows) // 2)


def _per_token(ours: Sequence[Scored], theirs: Sequence[Scored], lengths: Sequence[int], rounding: float) -> float:
    """Return the largest difference of log-likelihoods beyond their own rounding, in nats per token."""
    differences = [
        (abs(a - b) - rounding * abs(b)) / length for (a, _), (b, _), length in zip(ours, theirs, lengths, strict=True)
    ]
    return max(0.0, *(value if value == value else float("inf") for value in differences))
