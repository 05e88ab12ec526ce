"""Inter-rater agreement on the same responses, raw and chance-corrected.

Kappa and alpha are undefined when all verdicts are one behaviour: chance alone then agrees as well. Intervals are
bootstrap percentiles over clusters, since responses to one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.bootstrap import RESAMPLES, cluster_counts, percentile_interval
from cst_bench.statistics.intervals import UNDEFINED, Estimate

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two raters."""

    raters: tuple[str, str]
    n: int
    """Rows that both scored."""
    raw: Estimate
    kappa: Estimate
    """Cohen's kappa (Cohen 1960)."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two or more raters."""

    n: int
    """Rows."""
    clusters: int
    behaviours: tuple[str, ...]
    scored: dict[str, int]
    """Rater → rows that it scored."""
    raw: Estimate
    """Share of pairs of verdicts on one row that are the same."""
    n_complete: int
    """Rows that all scored."""
    fleiss_kappa: Estimate
    """Fleiss' kappa (Fleiss 1971), on the complete rows."""
    krippendorff_alpha: Estimate
    """Krippendorff's nominal alpha (Krippendorff 2004), on all rows that two or more scored."""
    pairs: tuple[PairAgreement, ...]


def agreement(
    names: Sequence[str],
    columns: Sequence[Sequence[str | None]],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compute the agreement of two or more raters of the same rows, with bootstrap intervals.

    Args:
        names: The raters: judges or labellers.
        columns: Each rater's verdict on each row: a behaviour, or None for unscored, which counts as missing.
        clusters: Cluster of each row; rows of one cluster (one prompt) are resampled together.
        resamples: Number of bootstrap resamples.
        seed: Bootstrap seed.

    Raises:
        ValueError: fewer than two raters, or columns of unequal length.
    """
    if len(names) < 2 or len(names) != len(columns) or {len(column) for column in columns} != {len(clusters)}:
        raise ValueError("agreement needs two raters or more, and a verdict or None of each for every row")
    rows = _Rows.of(columns, clusters)
    draws = cluster_counts(len(rows.ids), seed, resamples)
    raters = range(len(names))
    return Agreement(
        n=len(clusters),
        clusters=len(rows.ids),
        behaviours=tuple(rows.behaviours),
        scored={name: sum(verdict is not None for verdict in column) for name, column in zip(names, columns)},
        raw=_of_pairs(rows.pair_tables(list(raters)), draws, _raw),
        n_complete=len(rows.complete()),
        fleiss_kappa=_of_rows(rows, rows.complete(), draws, _fleiss),
        krippendorff_alpha=_of_rows(rows, rows.pairable(), draws, _krippendorff),
        pairs=tuple(
            PairAgreement(
                (names[first], names[second]),
                int(tables.sum()),
                _of_pairs(tables, draws, _raw),
                _of_pairs(tables, draws, _cohen),
            )
            for first, second in combinations(raters, 2)
            for tables in [rows.pair_tables([first, second])]
        ),
    )


@dataclass(frozen=True)
class _Rows:
    """Verdicts as numbers."""

    behaviours: list[str]
    codes: Ints
    """Behaviour of each verdict, -1 for unscored, shape (raters, rows)."""
    counts: Ints
    """Raters that say each behaviour, shape (rows, behaviours)."""
    ids: list[str]
    """The clusters."""
    cluster: Ints
    """Cluster of each row, shape (rows,)."""

    @staticmethod
    def of(columns: Sequence[Sequence[str | None]], clusters: Sequence[str]) -> _Rows:
        """Encode the verdicts of raters."""
        behaviours = sorted({verdict for column in columns for verdict in column if verdict is not None})
        code: dict[str | None, int] = {behaviour: index for index, behaviour in enumerate(behaviours)}
        code[None] = -1
        codes = np.array([[code[verdict] for verdict in column] for column in columns], dtype=int)
        counts = np.stack([(codes == index).sum(0) for index in range(len(behaviours))] or [codes.sum(0)[:0]], axis=-1)
        ids = sorted(set(clusters))
        number = {name: index for index, name in enumerate(ids)}
        return _Rows(behaviours, codes, counts, ids, np.array([number[name] for name in clusters], dtype=int))

    def complete(self) -> Ints:
        """Return the rows that all raters scored."""
        return np.flatnonzero((self.codes >= 0).all(0))

    def pairable(self) -> Ints:
        """Return the rows that two or more raters scored."""
        return np.flatnonzero((self.codes >= 0).sum(0) >= 2)

    def pair_tables(self, raters: Sequence[int]) -> Floats:
        """Count pairs of verdicts on the same row, shape (clusters, behaviours, behaviours)."""
        size = len(self.behaviours)
        tables = np.zeros((len(self.ids), size, size))
        for first, second in combinations(raters, 2):
            both = (self.codes[first] >= 0) & (self.codes[second] >= 0)
            np.add.at(tables, (self.cluster[both], self.codes[first][both], self.codes[second][both]), 1)
        return tables


def _of_pairs(tables: Floats, draws: Ints, statistic: Callable[[Floats], float | None]) -> Estimate:
    """Return a statistic of a table of pairs, summed over clusters."""
    resampled = np.tensordot(draws, tables, axes=1)
    return _estimate(statistic(tables.sum(0)), [statistic(table) for table in resampled])


def _of_rows(rows: _Rows, chosen: Ints, draws: Ints, statistic: Callable[[Ints], float | None]) -> Estimate:
    """Return a statistic of the counts of some rows."""
    counts, cluster = rows.counts[chosen], rows.cluster[chosen]
    return _estimate(statistic(counts), [statistic(np.repeat(counts, draw[cluster], axis=0)) for draw in draws])


def _estimate(value: float | None, resampled: Sequence[float | None]) -> Estimate:
    if value is None:
        return UNDEFINED
    values = np.array([np.nan if number is None else number for number in resampled], dtype=float)
    return Estimate(value, percentile_interval(values))


def _raw(table: Floats) -> float | None:
    total = float(table.sum())
    return float(table.trace()) / total if total else None


def _cohen(table: Floats) -> float | None:
    from statsmodels.stats.inter_rater import cohens_kappa

    total = table.sum()
    if not total or (table.sum(0) * table.sum(1)).sum() == total**2:  # chance agrees on every row
        return None
    return float(cohens_kappa(table, return_results=False))


def _fleiss(counts: Ints) -> float | None:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(counts)) if (counts.sum(0) > 0).sum() > 1 else None


def _krippendorff(counts: Ints) -> float | None:
    import krippendorff

    if (counts.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
