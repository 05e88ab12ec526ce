"""How many responses to label in each stratum: Neyman's allocation (Neyman 1934, JRSS 97; Cochran 1977, section 5.5).

With a given number of labels the variance of a stratified share is least if each stratum gets labels in proportion to
its size times the standard deviation in it. `allocation_order` is the exact version in whole numbers (Wright 2012,
The American Statistician 66): the next label goes to the stratum where it reduces the variance most. A larger
plan therefore contains each smaller one.

Lee et al. (2026, ICML, arXiv 2511.21140) allocate the labels of a calibration between the two true classes, which are
known there; of a run only the verdicts are known before labels, so that the strata are the judge's classes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from cst_bench.statistics.correction import MIN_LABELLED, Stratum, stratified

LEAST = 5
"""Labels that each stratum gets before the rest is allocated: the expected deviation may be wrong."""


@dataclass(frozen=True)
class PlannedStratum:
    """Responses that are to be labelled in part, and what is expected of them."""

    n: int
    """Number of responses."""
    share: float
    """Expected share that shows the behaviour, in 0 to 1."""

    @property
    def deviation(self) -> float:
        """Return the expected standard deviation of a response's label: the root of share times (1 - share)."""
        return math.sqrt(self.share * (1 - self.share))


def allocation_order(strata: Sequence[PlannedStratum], *, least: int = LEAST) -> Iterator[int]:
    """Yield for each label the index of the stratum that it goes to, until all responses are labelled.

    The first `least` labels of each stratum come first, in turns. Then the priority of a stratum with k labels is
    size times deviation over the root of k (k + 1) (Wright 2012).
    """
    taken = [min(least, stratum.n) for stratum in strata]
    for number in range(max(taken, default=0)):
        yield from (index for index, count in enumerate(taken) if number < count)

    def entry(index: int) -> tuple[float, int]:
        k, stratum = taken[index], strata[index]
        return -stratum.n * stratum.deviation / math.sqrt(k * (k + 1)) if k else -math.inf, index

    waiting = [entry(index) for index, stratum in enumerate(strata) if taken[index] < stratum.n]
    heapq.heapify(waiting)
    while waiting:
        _, index = heapq.heappop(waiting)
        yield index
        taken[index] += 1
        if taken[index] < strata[index].n:
            heapq.heappush(waiting, entry(index))


def allocate(strata: Sequence[PlannedStratum], total: int, *, least: int = LEAST) -> tuple[int, ...]:
    """Return the number of labels of each stratum; together `total`, or all responses if these are fewer."""
    labels = [0] * len(strata)
    for index in islice(allocation_order(strata, least=least), total):
        labels[index] += 1
    return tuple(labels)


def expected_half_width(strata: Sequence[PlannedStratum], labels: Sequence[int]) -> float:
    """Return half the width of the interval of `stratified` if the labels turn out as expected.

    Args:
        strata: The strata, at least one of which is not empty.
        labels: Number of labels of each stratum.
    """
    expected = [
        Stratum(stratum.n, count * stratum.share, count * (1 - stratum.share))
        for stratum, count in zip(strata, labels, strict=True)
    ]
    _, low, high = stratified(expected)
    return (high - low) / 2


def labels_needed(width: float, strata: Sequence[PlannedStratum]) -> tuple[int, ...] | None:
    """Return the fewest labels of each stratum for an expected half-width; None if labelling all is not enough.

    Args:
        width: Target half-width of the 95 % interval.
        strata: The strata, at least one of which is not empty.
    """

    def wide(total: int) -> bool:
        return expected_half_width(strata, allocate(strata, total)) > width

    n = sum(stratum.n for stratum in strata)
    if wide(n):
        return None
    below, enough = min(MIN_LABELLED, n) - 1, n
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (middle, enough) if wide(middle) else (below, middle)
    return allocate(strata, enough)
