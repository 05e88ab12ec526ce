"""Intervals of statistics of a table of counts (labels against verdicts, one rater against another) at any n.

Percentiles of a bootstrap have no width where all verdicts agree, and cover too little below a hundred or so labels.
Here an interval comes from posterior draws of the table's shares (Goutte and Gaussier 2005, ECIR). Where clusters hold
several counts (responses to one prompt), the counts are first scaled to the effective sample size, n over the design
effect (Korn and Graubard 1998, Survey Methodology 24; Franco, Little, Louis and Slud 2019, Journal of Survey Statistics
and Methodology 7): an interval is never narrower than that of independent counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.bootstrap import RESAMPLES, resampled_sums
from cst_bench.statistics.intervals import Interval

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Mapping[str, NDArray[np.float64]]]
"""Tables, shape (…, classes, classes) → name → values, shape (…); NaN where undefined."""
DRAWS = 4000
_RIGHT, _WRONG = 1.0, 0.5
"""Prior counts of each label: of its own cell, and of all others of its row together."""


def effective_fractions(counts: Counts, statistic: Statistic, seed: int) -> dict[str, float] | None:
    """Return the share of the counts that independent ones would need for the same precision, for each value.

    The design effect is the variance over resampled clusters divided by that over resampled counts. Where neither
    varies, as where all verdicts agree, each cluster is taken for a single count (Kish 1965, with an intraclass
    correlation of 1). The uncertainty of a variance from few clusters is included by the ratio of t quantiles of Korn
    and Graubard. None for a single cluster of several counts, whose variance nobody knows.

    Args:
        counts: A table for each cluster, shape (clusters, classes, classes).
        statistic: What to compute of a table.
        seed: Bootstrap seed.
    """
    from scipy.stats import t

    table, sizes = counts.sum(0), counts.sum((-2, -1))
    sizes = sizes[sizes > 0]
    total = float(sizes.sum())
    if (sizes == 1).all():
        return dict.fromkeys(statistic(table), 1.0)
    if len(sizes) < 2:
        return None
    singly = np.random.default_rng(seed).multinomial(round(total), table.ravel() / total, RESAMPLES)
    apart = statistic(singly.reshape(-1, *table.shape).astype(float))
    together = statistic(resampled_sums(counts[counts.sum((-2, -1)) > 0], seed))
    few = float(t.ppf(0.975, total - 1) / t.ppf(0.975, len(sizes) - 1)) ** 2
    largest = float((sizes**2).sum() / total)
    fractions = {}
    for name, values in apart.items():
        ours, theirs = _variance(together[name]), _variance(values)
        fractions[name] = few / (max(1.0, ours / theirs) if theirs > 1e-12 else largest)
    return fractions


def _variance(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.var()) if len(defined) else 0.0


def posterior_draws(table: Counts, fraction: float, seed: int, draws: int = DRAWS) -> Counts:
    """Draw tables of shares, up to a factor, from the posterior of a Dirichlet prior; shape (draws, classes, classes).

    Each label that occurs has a prior count of 1 in its own cell and of 1/2 in the others of its row together: with
    these the intervals of F1 cover best (`benchmarks/coverage.py`). Labels that do not occur stay at 0.

    Args:
        table: Counts, row = label, column = verdict.
        fraction: What the counts are multiplied by, from `effective_fractions`.
        seed: Random seed.
        draws: Number of draws.
    """
    classes = len(table)
    prior = np.full((classes, classes), _WRONG / max(classes - 1, 1))
    np.fill_diagonal(prior, _RIGHT)
    prior[table.sum(-1) == 0] = 0
    drawn: Counts = np.random.default_rng(seed).standard_gamma(table * fraction + prior, (draws, *table.shape))
    return drawn


def drawn_interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """Return the 2.5 and 97.5 % points of posterior draws, widened to a value on the boundary."""
    low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975])
    return min(float(low), value), max(float(high), value)
