"""Paired differences with intervals and tests.

Shares: exact McNemar test (McNemar 1947) and Newcombe's interval of a paired difference of shares (Newcombe 1998,
Statistics in Medicine 17, method 10, from Wilson's intervals). Means: bootstrap over keys (documents or prompts), and
the permutation test that exchanges the two sides of a key. Several tests at once: Holm (1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cst_bench.statistics.bootstrap import PAIRED_RESAMPLES, percentile_interval, resampled_means
from cst_bench.statistics.intervals import Interval, newcombe, unseen_share

LEVEL = 0.05
"""Holm-corrected p value below which a difference is significant."""


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
    """`McNemar` or `permutation`."""
    gained: tuple[str, ...] = ()
    """Keys that only the first gets right, for scores of 0 and 1."""
    lost: tuple[str, ...] = ()
    """Keys that only the second gets right."""


def shares_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference:
    """Return the difference of scores of 0 and 1, with the exact McNemar test and Newcombe's interval.

    Args:
        ours: Key → score of the first.
        theirs: Key → score of the second.
    """
    from scipy.stats import binomtest

    common = sorted(ours.keys() & theirs.keys())
    gained = tuple(key for key in common if ours[key] > theirs[key])
    lost = tuple(key for key in common if ours[key] < theirs[key])
    n = len(common)
    if n == 0:
        return Difference(None, None, None, 0, "McNemar")
    both = sum(ours[key] == theirs[key] == 1 for key in common)
    differing = len(gained) + len(lost)
    p = 1.0 if differing == 0 else float(binomtest(len(gained), differing).pvalue)
    return Difference(
        (len(gained) - len(lost)) / n, newcombe(both, len(gained), len(lost), n), p, n, "McNemar", gained, lost
    )


def bootstrap_difference(parts: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Difference:
    """Return the difference in the mean over parts of their mean scores, resampled by key.

    Each part has the scores of both sides by key (a prompt or a document). A key in several parts is drawn for all of
    them; keys that are to be drawn independently have different names.
    """
    common = [sorted(ours.keys() & theirs.keys()) for ours, theirs in parts]
    if not parts or not all(common):
        return Difference(None, None, None, 0, "permutation")
    keys = sorted(set().union(*common))
    place = {key: at for at, key in enumerate(keys)}
    # difference of each key in each part, and whether it is there
    values, present = np.zeros((len(parts), len(keys))), np.zeros((len(parts), len(keys)))
    for row, ((ours, theirs), shared) in enumerate(zip(parts, common, strict=True)):
        at = [place[key] for key in shared]
        values[row, at] = [ours[key] - theirs[key] for key in shared]
        present[row, at] = 1
    size = present.sum(1)
    difference = float((values.sum(1) / size).mean())
    weights = (values / size[:, None]).mean(0)  # contribution of a key to the difference
    moved = np.flatnonzero(np.abs(weights) > 1e-12)
    draw = np.random.default_rng(0)
    if not len(moved):
        # resampling keys that do not differ would give an interval of no width
        most = float(np.mean(unseen_share(size)))
        return Difference(0.0, (-most, most), 1.0, len(keys), "permutation")
    signs = draw.integers(0, 2, (PAIRED_RESAMPLES, len(moved))) * 2 - 1
    p = float((1 + np.sum(np.abs(signs @ weights[moved]) >= abs(difference) - 1e-12)) / (PAIRED_RESAMPLES + 1))
    interval = percentile_interval(resampled_means(values, present, draw, PAIRED_RESAMPLES))
    if interval is not None:  # rounding can put an end past the difference itself
        interval = min(interval[0], difference), max(interval[1], difference)
    return Difference(difference, interval, p, len(keys), "permutation")


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
