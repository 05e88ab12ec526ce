"""How far two scorers are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Scored = tuple[float, bool]


@dataclass(frozen=True)
class Comparison:
    """Differences between two lists of answers to the same requests."""

    max_abs_diff: float
    mean_abs_diff: float
    greedy_mismatches: int
    flip_rate: float | None
    """Share of the questions whose best choice differs; None if it isn't known what belongs to which question."""


def compare(ours: Sequence[Scored], theirs: Sequence[Scored], choices: Sequence[int] | None = None) -> Comparison:
    """Compares answers.

    Args:
        ours: One scorer's.
        theirs: The other's.
        choices: How many of the answers, in order, belong to each question.

    Raises:
        ValueError: the lists differ in length, are empty, or `choices` doesn't sum up to it.
    """
    if not ours or len(ours) != len(theirs) or (choices is not None and sum(choices) != len(ours)):
        raise ValueError(f"can't compare {len(ours)} with {len(theirs)} answers")
    apart = [abs(a - b) for (a, _), (b, _) in zip(ours, theirs)]
    mismatches = sum(a != b for (_, a), (_, b) in zip(ours, theirs))
    flips = None if choices is None else _flips(ours, theirs, choices)
    return Comparison(max(apart), sum(apart) / len(apart), mismatches, flips)


def _flips(ours: Sequence[Scored], theirs: Sequence[Scored], choices: Sequence[int]) -> float:
    flips = start = 0
    for count in choices:
        block = range(start, start + count)
        flips += max(block, key=lambda i: ours[i][0]) != max(block, key=lambda i: theirs[i][0])
        start += count
    return flips / len(choices)
