"""Means over training seeds: intervals and tests over seeds and prompts at once.

A method's score is a mean over two samples: the seeds that it was trained with, and the prompts (or documents) that
every trained model was measured on. Resampling only one of them says how the score varies with the other one fixed. The
pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1, 386-411) draws seeds and prompts independently, each
with replacement. Few seeds vary too little in a bootstrap: the deviation of their resampled weights is multiplied by
√(S / (S - 1)), and by the ratio of Student's t with S - 1 degrees of freedom to the normal quantile (as Hesterberg
2015, The American Statistician 69, expands percentiles).

With fewer than five seeds there is no interval and no test: minimum and maximum over seeds are what is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cst_bench.statistics.bootstrap import (
    RESAMPLES,
    Floats,
    few_clusters_factor,
    percentile_interval,
    resampled_part_means,
)
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference, as_arrays, bootstrap_difference

MIN_SEEDS = 5
"""Least number of seeds that an interval is given for."""
TEST = "seeds and prompts"

RunParts = Sequence[Mapping[str, float]]
"""One run: key (prompt or document) → score, for each score that its own is the mean of."""


def two_way_interval(runs: Sequence[RunParts], own: Sequence[Interval | None]) -> Interval | None:
    """Return the interval of a mean over training seeds; None for fewer than five seeds, or if a run has none.

    It is no narrower than the runs' own intervals are on average: seeds that happen to agree leave the uncertainty of
    the prompts.

    Args:
        runs: One for each seed.
        own: Interval of each run alone, over its prompts.
    """
    if len(runs) < MIN_SEEDS:
        return None
    (resampled,) = _resampled([runs])
    return _contain(percentile_interval(resampled), own, 0.0)


def two_way_difference(
    ours: Sequence[RunParts], theirs: Sequence[RunParts], own: Sequence[Interval | None]
) -> Difference:
    """Return the difference between two methods, each one run for each seed, or a single run such as a base.

    Prompts are drawn for all runs at once, the seeds of each side independently; a single run is taken as it is. The p
    value is that of Student's t of the difference over its standard error from seeds and prompts (Satterthwaite 1946,
    Biometrics Bulletin 2, for the degrees of freedom), and no smaller than that of the permutation test over prompts of
    the mean over seeds. With two to four seeds on a side there is neither interval nor p value.

    Args:
        ours: Runs of the first, one for each seed.
        theirs: Runs of the second.
        own: Intervals of differences between single runs: the interval is no narrower than these are on average.
    """
    parts = [(_mean_over(ours, at), _mean_over(theirs, at)) for at in range(len(ours[0]))]
    prompts = bootstrap_difference(parts)
    if prompts.difference is None or prompts.p is None or any(1 < len(side) < MIN_SEEDS for side in (ours, theirs)):
        return Difference(prompts.difference, None, None, prompts.n, TEST)
    shared = [first.keys() & second.keys() for first, second in parts]
    sides = [[[_only(part, keys) for part, keys in zip(run, shared)] for run in side] for side in (ours, theirs)]
    first, second = _resampled(sides)
    interval = _contain(percentile_interval(first - second), own, -1.0)
    if interval is not None:  # where a run lacks verdicts, the resampled means are about a slightly different one
        interval = min(interval[0], prompts.difference), max(interval[1], prompts.difference)
    p = max(prompts.p, _t_test(prompts.difference, sides, parts))
    return Difference(prompts.difference, interval, p, prompts.n, TEST)


def _mean_over(runs: Sequence[RunParts], at: int) -> dict[str, float]:
    """Return the mean over runs of each key's score in one part, over the runs that have one."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        for key, score in run[at].items():
            scores.setdefault(key, []).append(score)
    return {key: math.fsum(values) / len(values) for key, values in scores.items()}


def _only(part: Mapping[str, float], keys: set[str]) -> dict[str, float]:
    return {key: score for key, score in part.items() if key in keys}


def _resampled(sides: Sequence[Sequence[RunParts]]) -> list[Floats]:
    """Return the mean of each side with seeds and prompts drawn with replacement, each of shape (resamples,)."""
    runs = [run for side in sides for run in side]
    _, values, present = as_arrays([part for run in runs for part in run])
    # prompts are drawn among those of the same task, whether or not a run has a verdict on them
    there = present.reshape(len(runs), -1, present.shape[1]).any(0)
    _, kinds = np.unique(there, axis=1, return_inverse=True)
    draw = np.random.default_rng(0)
    means = resampled_part_means(values, present, kinds.ravel(), draw, RESAMPLES)
    scores = means.reshape(RESAMPLES, len(runs), -1).mean(2)
    resampled, start = [], 0
    for side in sides:
        weights = _seed_weights(len(side), draw)
        resampled.append((weights * scores[:, start : start + len(side)]).sum(1))
        start += len(side)
    return resampled


def _seed_weights(seeds: int, draw: np.random.Generator) -> Floats:
    """Return the resampled weight of each seed, spread for their small number, shape (resamples, seeds)."""
    if seeds == 1:
        return np.ones((RESAMPLES, 1))
    times = draw.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    weights: Floats = (1 + few_clusters_factor(seeds) * (times - 1)) / seeds
    return weights


def _contain(interval: Interval | None, own: Sequence[Interval | None], least: float) -> Interval | None:
    """Widen an interval to hold the mean of others, within `least` and 1; None if one is undefined."""
    known = [ends for ends in own if ends is not None]
    if interval is None or len(known) < len(own):
        return None
    low, high = (math.fsum(ends) / len(known) for ends in zip(*known, strict=True))
    return max(least, min(interval[0], low)), min(1.0, max(interval[1], high))


def _t_test(
    difference: float,
    sides: Sequence[Sequence[RunParts]],
    parts: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
) -> float:
    """Return the two-sided p value of a difference by Student's t, with variances of seeds and of prompts."""
    from scipy.stats import t

    variances, freedom = [], []
    for side in sides:
        if len(side) > 1:
            scores = [np.mean([np.mean(list(part.values())) for part in run]) for run in side]
            variances.append(float(np.var(scores, ddof=1)) / len(side))
            freedom.append(len(side) - 1)
    _, values, present = as_arrays(
        [{key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()} for ours, theirs in parts]
    )
    contributions = (values / present.sum(1)[:, None]).mean(0)
    _, kinds = np.unique(present, axis=1, return_inverse=True)
    for kind in range(int(kinds.max()) + 1):
        of_kind = contributions[kinds.ravel() == kind]
        if len(of_kind) > 1:
            variances.append(len(of_kind) * float(np.var(of_kind, ddof=1)))
            freedom.append(len(of_kind) - 1)
    total = math.fsum(variances)
    if total == 0:
        return 1.0 if difference == 0 else 0.0
    degrees = total**2 / math.fsum(variance**2 / df for variance, df in zip(variances, freedom, strict=True))
    return 2 * float(t.sf(abs(difference) / math.sqrt(total), degrees))
