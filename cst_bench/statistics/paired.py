"""Two runs compared on what both were asked: differences with intervals, and the tests that go with them.

Compliance: exact McNemar test (McNemar 1947) and Newcombe's interval of a paired difference of shares (Newcombe 1998,
Statistics in Medicine 17, method 10, from Wilson's intervals). Capabilities and averages: bootstrap over documents or
prompts, and the permutation test that exchanges the two models' results of one. Several at once: Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cst_bench.statistics.intervals import wilson

RESAMPLES = 9999
LEVEL = 0.05
"""Of the Holm-corrected p value below which a difference counts as shown."""


@dataclass(frozen=True)
class Difference:
    """The score of one run less that of another, over what is scored in both; None where nothing is."""

    difference: float | None
    interval: tuple[float, float] | None
    """95 %."""
    p: float | None
    """Two-sided."""
    n: int
    """Pairs."""
    test: str
    """`McNemar` or `permutation`."""
    gained: tuple[str, ...] = ()
    """Prompts or documents that only the first gets right, for scores of 0 and 1."""
    lost: tuple[str, ...] = ()
    """Those that only the other gets right."""


def shares_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference:
    """Of scores of 0 and 1, by exact McNemar test and Newcombe's interval."""
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


def newcombe(both: int, gained: int, lost: int, n: int) -> tuple[float, float]:
    """95 % interval of a paired difference of shares (Newcombe 1998, method 10).

    Args:
        both: Pairs that both get right.
        gained: Pairs that only the first gets right.
        lost: Pairs that only the other gets right.
        n: All pairs, at least 1.
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


def bootstrap_difference(parts: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Difference:
    """Of the mean over parts of their mean scores, resampled by key; a key in several parts is drawn for all of them.

    Each part holds the scores of both runs by key: a prompt or a document. Keys of different parts that are to be drawn
    apart have different names.
    """
    common = [sorted(ours.keys() & theirs.keys()) for ours, theirs in parts]
    if not parts or not all(common):
        return Difference(None, None, None, 0, "permutation")
    keys = sorted(set().union(*common))
    place = {key: at for at, key in enumerate(keys)}
    # of each part: differences and whether they are there, [keys]
    values, present = np.zeros((len(parts), len(keys))), np.zeros((len(parts), len(keys)))
    for row, ((ours, theirs), some) in enumerate(zip(parts, common, strict=True)):
        at = [place[key] for key in some]
        values[row, at] = [ours[key] - theirs[key] for key in some]
        present[row, at] = 1
    size = present.sum(1)
    difference = float((values.sum(1) / size).mean())
    weights = (values / size[:, None]).mean(0)  # what a key adds to the difference
    moved = np.flatnonzero(np.abs(weights) > 1e-12)
    draw = np.random.default_rng(0)
    if not len(moved):
        most = float(np.mean(_unseen(size)))
        return Difference(0.0, (-most, most), 1.0, len(keys), "permutation")
    signs = draw.integers(0, 2, (RESAMPLES, len(moved))) * 2 - 1
    p = float((1 + np.sum(np.abs(signs @ weights[moved]) >= abs(difference) - 1e-12)) / (RESAMPLES + 1))
    return Difference(difference, _bootstrap(values, present, draw, difference), p, len(keys), "permutation")


def _unseen(n: np.ndarray) -> np.ndarray:
    """Largest share of keys that may differ where none of n does (Clopper and Pearson 1934, 95 %); scores are in 0–1.

    Resampling what doesn't differ would say that nothing ever will.
    """
    return 1 - 0.025 ** (1 / n)


def _bootstrap(
    values: np.ndarray, present: np.ndarray, draw: np.random.Generator, difference: float
) -> tuple[float, float]:
    """Percentile interval; keys are drawn among those that are in the same parts, so that none comes out empty."""
    totals = np.zeros((RESAMPLES, len(values)))
    sizes = np.zeros((RESAMPLES, len(values)))
    _, kinds = np.unique(present, axis=1, return_inverse=True)
    for kind in range(int(kinds.max()) + 1):
        of = np.flatnonzero(kinds.ravel() == kind)
        for start in range(0, RESAMPLES, 500):
            stop = min(start + 500, RESAMPLES)
            counts = draw.multinomial(len(of), np.full(len(of), 1 / len(of)), stop - start)
            totals[start:stop] += counts @ values[:, of].T
            sizes[start:stop] += counts @ present[:, of].T
    means = (totals / sizes).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return min(float(low), difference), max(float(high), difference)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979)."""
    if not ps:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(ps), method="holm")[1]]
