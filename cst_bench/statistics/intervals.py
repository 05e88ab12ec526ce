"""Confidence intervals, all 95 %; None is undefined."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, each None where it is undefined."""

    value: float | None
    interval: Interval | None


UNDEFINED = Estimate(None, None)


def wilson(successes: float, n: float) -> Interval | None:
    """Return Wilson's score interval of a share (Wilson 1927, JASA 22); None for n = 0."""
    if n == 0:
        return None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    # rounding can put an end that is the share itself one digit past it
    return min(float(low), successes / n), max(float(high), successes / n)


def effective_size(shares: Sequence[float], responses: int) -> float:
    """Return the number of independent responses that say as much about the mean of clusters' shares as these do.

    It is the variance of a single response over the variance of the mean (Kish 1965, Survey Sampling, section 8.2), and
    no more than the number of responses. Where no share differs from another, clusters may be of one kind and all that
    is left out of another: then it is the number of clusters.

    Args:
        shares: Share of each cluster, such as of the responses to one prompt; at least one.
        responses: Number of responses in all clusters.
    """
    mean = statistics.fmean(shares)
    spread = statistics.pvariance(shares, mean)
    if spread <= 1e-15:
        return len(shares)
    return min(len(shares) * mean * (1 - mean) / spread, responses)


def clustered_share(shares: Sequence[float], responses: int) -> Interval | None:
    """Return Wilson's interval of the mean of clusters' shares, with the effective sample size; None without clusters.

    Korn and Graubard (1998, Survey Methodology 24) put the effective size into an interval for shares near 0 and 1, and
    reduce it for few clusters by the squared ratio of the normal quantile to Student's t. Dean and Pagano (2015,
    Journal of Survey Statistics and Methodology 3) find Wilson's the best interval for it.

    Args:
        shares: Share of each cluster, such as of the responses to one prompt.
        responses: Number of responses in all clusters.
    """
    from scipy.stats import norm, t

    if not shares:
        return None
    size = effective_size(shares, responses)
    if len(shares) > 1:
        size *= float(norm.ppf(0.975) / t.ppf(0.975, len(shares) - 1)) ** 2
    else:
        size = min(size, 1)
    return wilson(statistics.fmean(shares) * size, size)


def jeffreys(successes: float, n: float) -> Interval | None:
    """Return Jeffreys' interval of a share (Brown, Cai and DasGupta 2001, Statistical Science 16); None for n = 0.

    Where none or all succeed, it reaches the share itself. Both counts may be fractions: those of an effective sample.
    """
    if n == 0:
        return None
    from scipy.stats import beta

    low, high = beta.interval(0.95, successes + 0.5, n - successes + 0.5)
    return min(float(low), successes / n), max(float(high), successes / n)


def newcombe(both: int, gained: int, lost: int, n: int) -> Interval:
    """Return the interval of a paired difference of shares (Newcombe 1998, Statistics in Medicine 17, method 10).

    Args:
        both: Pairs that both get right.
        gained: Pairs that only the first gets right.
        lost: Pairs that only the second gets right.
        n: Number of pairs, at least 1.
    """
    neither = n - both - gained - lost
    ours, theirs = both + gained, both + lost
    (low_1, high_1), (low_2, high_2) = wilson(ours, n) or (0, 1), wilson(theirs, n) or (0, 1)
    p1, p2 = ours / n, theirs / n
    product = ours * (n - ours) * theirs * (n - theirs)
    phi = 0.0
    if product > 0:
        top = both * neither - gained * lost
        phi = (max(top - n / 2, 0) if top > 0 else top) / math.sqrt(product)
    # a rounding below 0 would be the root of a negative number
    below = max(0.0, (p1 - low_1) ** 2 - 2 * phi * (p1 - low_1) * (high_2 - p2) + (high_2 - p2) ** 2)
    above = max(0.0, (high_1 - p1) ** 2 - 2 * phi * (high_1 - p1) * (p2 - low_2) + (p2 - low_2) ** 2)
    return max(-1.0, p1 - p2 - math.sqrt(below)), min(1.0, p1 - p2 + math.sqrt(above))


def unseen_share(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper end of the interval of a share of which none of n was seen (Clopper and Pearson 1934)."""
    return 1 - 0.025 ** (1 / n)


def normal_interval(score: float | None, stderr: float | None) -> Interval | None:
    """Return 1.96 standard errors around a share, cut off at 0 and 1; None if either is undefined."""
    if score is None or stderr is None:
        return None
    return max(0.0, score - 1.96 * stderr), min(1.0, score + 1.96 * stderr)


def mean_interval(
    scores: Sequence[float | None], intervals: Sequence[Interval | None], weights: Sequence[float] | None = None
) -> tuple[float | None, Interval | None]:
    """Return the mean of scores and its interval, each None if some score has none.

    The interval combines those of the scores by MOVER (Zou and Donner 2008, Statistics in Medicine 27), taking the
    scores as independent.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None, None
    weights = weights or [1.0] * len(known)
    total = sum(weights)
    mean = sum(weight * score for weight, score in zip(weights, known, strict=True)) / total
    ends = [interval for interval in intervals if interval is not None]
    if len(ends) < len(known):
        return mean, None
    sides = list(zip(weights, known, ends, strict=True))
    below = math.hypot(*(weight * (score - low) for weight, score, (low, _) in sides)) / total
    above = math.hypot(*(weight * (high - score) for weight, score, (_, high) in sides)) / total
    return mean, (mean - below, mean + above)
