"""Paired differences with intervals and tests.

Shares: mid-p McNemar test (Fagerland, Lydersen and Laake 2013) and Newcombe's interval of a paired difference of shares
(Newcombe 1998, Statistics in Medicine 17, method 10, from Wilson's intervals). Means: bootstrap over keys (documents or
prompts), and the permutation test that exchanges the two sides of a key. Several tests at once: Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.bootstrap import (
    MIN_CLUSTERS,
    RESAMPLES,
    few_clusters_factor,
    percentile_interval,
    resampled_means,
    row_blocks,
)
from cst_bench.statistics.intervals import Interval, newcombe, unseen_share

MCNEMAR, PERMUTATION = "mid-p McNemar", "permutation"
SIGN_CHANGES = 9999
"""Number of random sign changes in the permutation test."""
LEVEL = 0.05
"""Holm-corrected p value below which a difference is significant."""

_ZERO = 1e-12
"""Contributions below it are rounding."""


@dataclass(frozen=True)
class Difference:
    """First minus second score, over the keys scored in both; None where there is none."""

    difference: float | None
    interval: Interval | None
    p: float | None
    """Two-sided."""
    n: int
    """Pairs."""
    test: str
    """`mid-p McNemar`, `permutation`, or `seeds and prompts` for means over training seeds."""
    gained: tuple[str, ...] = ()
    """Keys that only the first gets right, for scores of 0 and 1."""
    lost: tuple[str, ...] = ()
    """Keys that only the second gets right."""


def shares_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference:
    """Return the difference of scores of 0 and 1, with the mid-p McNemar test and Newcombe's interval.

    Args:
        ours: Key → score of the first.
        theirs: Key → score of the second.
    """
    common = sorted(ours.keys() & theirs.keys())
    gained = tuple(key for key in common if ours[key] > theirs[key])
    lost = tuple(key for key in common if ours[key] < theirs[key])
    n = len(common)
    if n == 0:
        return Difference(None, None, None, 0, MCNEMAR)
    both = sum(ours[key] == theirs[key] == 1 for key in common)
    interval = newcombe(both, len(gained), len(lost), n)
    p = mcnemar_mid_p(len(gained), len(lost))
    return Difference((len(gained) - len(lost)) / n, interval, p, n, MCNEMAR, gained, lost)


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Return the two-sided mid-p value of McNemar's test (Fagerland, Lydersen and Laake 2013).

    Source: BMC Medical Research Methodology 13:91. The exact conditional test (a binomial test of the pairs that
    differ) rejects equal models far less often than its level says; the mid-p value counts half of the probability of
    what was observed.

    Args:
        gained: Pairs that only the first gets right.
        lost: Pairs that only the second gets right.
    """
    from scipy.stats import binom

    differing, fewer = gained + lost, min(gained, lost)
    return min(1.0, float(2 * binom.cdf(fewer, differing, 0.5) - binom.pmf(fewer, differing, 0.5)))


def bootstrap_difference(
    parts: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], *, largest: float | None = 1.0
) -> Difference:
    """Return the difference in the mean over parts of their mean scores, resampled by key.

    Each part has the scores of both sides by key (a prompt or a document). A key in several parts is drawn for all of
    them; keys that are to be drawn independently have different names.

    Args:
        parts: Key → score, of the first and of the second.
        largest: Largest difference that there can be, which the interval does not exceed: 1 for shares. None for values
            without a bound, such as lengths; where no key differs there is then no interval.
    """
    by_part = [{key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()} for ours, theirs in parts]
    if not parts or not all(by_part):
        return Difference(None, None, None, 0, PERMUTATION)
    keys, values, present = as_arrays(by_part)
    size = present.sum(1)
    difference = float((values.sum(1) / size).mean())
    weights = (values / size[:, None]).mean(0)  # contribution of a key to the difference
    draw = np.random.default_rng(0)
    if not np.any(np.abs(weights) > _ZERO):
        # resampling keys that do not differ would give an interval of no width
        most = None if largest is None else largest * float(np.mean(unseen_share(size)))
        return Difference(0.0, None if most is None else (-most, most), 1.0, len(keys), PERMUTATION)
    p = sign_change_p(weights, draw)
    resampled = resampled_means(values, present, draw, RESAMPLES)
    fewest = int(size.min())
    expanded = difference + few_clusters_factor(fewest) * (resampled - difference)
    interval = percentile_interval(expanded) if fewest >= MIN_CLUSTERS else None
    if interval is not None:  # rounding can put an end past the difference itself
        bound = math.inf if largest is None else largest
        interval = max(-bound, min(interval[0], difference)), min(bound, max(interval[1], difference))
    return Difference(difference, interval, p, len(keys), PERMUTATION)


def as_arrays(parts: Sequence[Mapping[str, float]]) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the keys of all parts, the value of each key in each part (0 where absent), and 1 where it is there.

    Args:
        parts: Key → value, for each part.

    Returns:
        Keys in order; values and presence, each of shape (parts, keys).
    """
    keys = sorted(set().union(*parts))
    place = {key: at for at, key in enumerate(keys)}
    values, present = np.zeros((len(parts), len(keys))), np.zeros((len(parts), len(keys)))
    for row, part in enumerate(parts):
        at = [place[key] for key in part]
        values[row, at] = list(part.values())
        present[row, at] = 1
    return keys, values, present


def sign_change_p(weights: NDArray[np.float64], draw: np.random.Generator) -> float:
    """Return the two-sided p value of the permutation test that changes the signs of contributions to a sum at random.

    9,999 sign changes: p is (1 + as extreme) / (1 + 9,999) (Phipson and Smyth 2010). Where none is as extreme, that can
    be too coarse for a correction over many tests: p is then Hoeffding's bound of the exact p value, if that is smaller
    (Hoeffding 1963, JASA 58, theorem 2: the exact p is at most 2 exp(-sum² / (2 Σ weights²))).

    Args:
        weights: Contribution of each key to the sum, not all 0.
        draw: Source of randomness.
    """
    moved = np.abs(weights[np.abs(weights) > _ZERO])
    total = abs(float(weights.sum()))
    sizes, times = np.unique(moved, return_counts=True)  # keys of one size are drawn together
    extreme = 0
    for rows in row_blocks(SIGN_CHANGES, len(sizes), SIGN_CHANGES):
        kept = draw.binomial(times, 0.5, (rows.stop - rows.start, len(sizes)))
        extreme += int(np.sum(np.abs((2 * kept - times) @ sizes) >= total - _ZERO))
    p = (1 + extreme) / (1 + SIGN_CHANGES)
    return p if extreme else min(p, 2 * float(np.exp(-(total**2) / (2 * np.sum(moved**2)))))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6).

    The k-th smallest of m is multiplied by m - k + 1, and none is smaller than one before it. statsmodels gives the
    same numbers, but collects garbage in every call, which takes half a second in a process that holds a model.
    """
    values = np.asarray(ps, dtype=float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return [float(p) for p in np.minimum(corrected, 1)]
