"""The bootstrap (Efron and Tibshirani 1993): clusters are drawn with replacement, intervals are percentiles.

One convention everywhere: 2,000 resamples. There is no interval where a statistic is undefined in more than a tenth of
the resamples, or where there is a single cluster, which has no spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.intervals import UNDEFINED, Estimate, Interval

RESAMPLES = 2000
DEFINED_SHARE = 0.9
"""Share of resamples in which a statistic must be defined to have an interval."""
MIN_CLUSTERS = 5
"""Least number of clusters that a mean has an interval for: fewer do not show how it varies."""

_MOST_DRAWN = 2**21
"""Random numbers that are in memory at once, 16 MiB: those of few values in one piece, those of many row by row."""

Floats = NDArray[np.float64]


def cluster_counts(clusters: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Return how often each cluster is drawn, shape (resamples, clusters); no resample of a single cluster."""
    if clusters < 2:
        return np.zeros((0, clusters), dtype=np.int64)
    return _times_drawn(np.random.default_rng(seed), np.ones(clusters), resamples)


def resampled_sums(values: Floats, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return sums over clusters drawn with replacement: shape (clusters, …) → (resamples, …).

    Clusters with equal values are drawn together, as often as they would be one by one: few values are distinct. There
    is no resample of a single cluster.
    """
    distinct, times = np.unique(values, axis=0, return_counts=True)
    draw, resamples = np.random.default_rng(seed), resamples if len(values) > 1 else 0
    sums = np.zeros((resamples, *values.shape[1:]))
    for rows in row_blocks(resamples, len(distinct), resamples):
        sums[rows] = np.tensordot(_times_drawn(draw, times, rows.stop - rows.start), distinct, axes=1)
    return sums


def row_blocks(rows: int, columns: int, most: int) -> Iterator[slice]:
    """Yield rows of random numbers that are drawn and used together; they are the same ones in any blocks.

    Args:
        rows: Number of rows.
        columns: Random numbers of each.
        most: Most rows of a block.
    """
    size = max(1, min(most, _MOST_DRAWN // max(1, columns)))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def resampled_means(values: Floats, present: Floats, draw: np.random.Generator, resamples: int) -> Floats:
    """Return the mean over parts of their mean values, with keys drawn with replacement, shape (resamples,).

    A key in several parts is drawn for all of them. Keys are drawn among those that are in the same parts, so that no
    part comes out empty.

    Args:
        values: Value of each key in each part, 0 where it is absent, shape (parts, keys).
        present: 1 where a key is in a part, shape (parts, keys).
        draw: Source of randomness.
        resamples: Number of resamples.
    """
    _, kinds = np.unique(present, axis=1, return_inverse=True)
    means: Floats = resampled_part_means(values, present, kinds.ravel(), draw, resamples).mean(1)
    return means


def resampled_part_means(
    values: Floats, present: Floats, kinds: NDArray[np.int64], draw: np.random.Generator, resamples: int
) -> Floats:
    """Return the mean value of each part, with keys drawn with replacement, shape (resamples, parts).

    Args:
        values: Value of each key in each part, 0 where it is absent, shape (parts, keys).
        present: 1 where a key is in a part, shape (parts, keys).
        kinds: Kind of each key, from 0: keys are drawn among those of their kind, shape (keys,).
        draw: Source of randomness.
        resamples: Number of resamples.
    """
    totals, sizes = np.zeros((resamples, len(values))), np.zeros((resamples, len(values)))
    for kind in range(int(kinds.max()) + 1):
        keys = np.vstack([values, present])[:, kinds == kind]
        distinct, times = np.unique(keys, axis=1, return_counts=True)  # equal keys are drawn together
        for rows in row_blocks(resamples, len(times), 500):
            sums = _times_drawn(draw, times, rows.stop - rows.start) @ distinct.T
            totals[rows] += sums[:, : len(values)]
            sizes[rows] += sums[:, len(values) :]
    with np.errstate(invalid="ignore"):  # a part may come out empty where few of its keys are there
        means: Floats = totals / sizes
    return means


def mean_of_clusters(values: Sequence[float]) -> Estimate:
    """Return the mean of clusters' values, such as the lengths of responses to each prompt, and its interval.

    The interval is a percentile one over clusters drawn with replacement, expanded by `few_clusters_factor`. There is
    none for fewer than five clusters, nor where all have the same value: resampling then says nothing of the spread.
    """
    if not len(values):
        return UNDEFINED
    array = np.asarray(values, dtype=np.float64)
    mean = math.fsum(values) / len(values)
    if len(values) < MIN_CLUSTERS or array.min() == array.max():
        return Estimate(mean, None)
    resampled = resampled_sums(array[:, None], 0)[:, 0] / len(values)
    interval = percentile_interval(mean + few_clusters_factor(len(values)) * (resampled - mean))
    return Estimate(mean, interval)


def few_clusters_factor(n: int) -> float:
    """Return by what the deviation of resampled means of n clusters is multiplied: 1 for a single one.

    Percentiles of a bootstrap are too narrow for few clusters: by √((n - 1) / n), and by the normal quantile over
    Student's t with n - 1 degrees of freedom (Hesterberg 2015, The American Statistician 69).
    """
    from scipy.stats import norm, t

    return 1.0 if n < 2 else math.sqrt(n / (n - 1)) * float(t.ppf(0.975, n - 1) / norm.ppf(0.975))


def percentile_interval(resampled: Floats) -> Interval | None:
    """Return the 2.5 and 97.5 % points of a statistic's resamples, NaN being undefined; None if too few are defined."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined) or len(defined) < DEFINED_SHARE * len(resampled):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _times_drawn(draw: np.random.Generator, times: NDArray[np.number], resamples: int) -> NDArray[np.int64]:
    """Draw from distinct values, each there a number of times, as many as there are; shape (resamples, values)."""
    n = times.sum()
    counts: NDArray[np.int64] = draw.multinomial(int(n), times / n, size=resamples)
    return counts
