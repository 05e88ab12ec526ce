"""Differences between two scorers' answers, and the fewest tokens that an exact scorer reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cst_bench.capabilities.likelihoods.planning import common_prefix
from cst_bench.capabilities.likelihoods.scorer import Requests, Scored


@dataclass(frozen=True)
class Comparison:
    """Differences between two lists of answers to the same requests."""

    max_abs_diff: float
    mean_abs_diff: float
    greedy_mismatches: int
    flip_rate: float | None
    """Share of the questions whose best choice differs; None if the grouping by question is unknown."""


def compare(ours: Sequence[Scored], theirs: Sequence[Scored], choices: Sequence[int] | None = None) -> Comparison:
    """Compare two scorers' answers.

    Args:
        ours: Answers of one scorer.
        theirs: Answers of the other.
        choices: Number of answers, in order, to each question.

    Raises:
        ValueError: the lists differ in length or are empty, or `choices` does not sum to their length.
    """
    if not ours or len(ours) != len(theirs) or (choices is not None and sum(choices) != len(ours)):
        raise ValueError(f"could not compare {len(ours)} with {len(theirs)} answers")
    differences = [abs(a - b) for (a, _), (b, _) in zip(ours, theirs)]
    mismatches = sum(a != b for (_, a), (_, b) in zip(ours, theirs))
    flips = None if choices is None else _flips(ours, theirs, choices)
    return Comparison(max(differences), sum(differences) / len(differences), mismatches, flips)


def _flips(ours: Sequence[Scored], theirs: Sequence[Scored], choices: Sequence[int]) -> float:
    flips = start = 0
    for count in choices:
        block = range(start, start + count)
        flips += max(block, key=lambda i: ours[i][0]) != max(block, key=lambda i: theirs[i][0])
        start += count
    return flips / len(choices)


def unique_tokens(requests: Requests, max_length: int) -> int:
    """Count the nodes of the trie of all inputs: no exact scorer can read fewer tokens."""
    inputs = sorted({(*context, *continuation)[-(max_length + 1) :][:-1] for context, continuation in requests})
    shared = sum(common_prefix(a, b) for a, b in pairwise(inputs))
    return sum(map(len, inputs)) - shared
