"""Inter-rater agreement on the same responses, raw and chance-corrected.

Kappa and alpha are undefined when all verdicts are one behaviour: chance alone then agrees as well. Intervals come from
the table of pairs of verdicts on one row (`table_posterior`): pairs of one row, and responses to one prompt, are not
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.classification import metric_estimates
from cst_bench.statistics.intervals import UNDEFINED, Estimate
from cst_bench.statistics.table_posterior import drawn_interval, effective_fractions, posterior_draws

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
    seed: int = 0,
) -> Agreement:
    """Compute the agreement of two or more raters of the same rows, with intervals.

    Args:
        names: The raters: judges or labellers.
        columns: Each rater's verdict on each row: a behaviour, or None for unscored, which counts as missing.
        clusters: Cluster of each row; rows of one cluster (one prompt) are not independent.
        seed: Random seed.

    Raises:
        ValueError: fewer than two raters, or columns of unequal length.
    """
    if len(names) < 2 or len(names) != len(columns) or {len(column) for column in columns} != {len(clusters)}:
        raise ValueError("agreement needs two raters or more, and a verdict or None of each for every row")
    rows = _Rows.of(columns, clusters)
    raters = list(range(len(names)))
    return Agreement(
        n=len(clusters),
        clusters=len(rows.ids),
        behaviours=tuple(rows.behaviours),
        scored={name: sum(verdict is not None for verdict in column) for name, column in zip(names, columns)},
        raw=_of_pairs(rows.pair_tables(raters), seed)["agreement"],
        n_complete=len(rows.complete()),
        fleiss_kappa=_beyond_chance(_fleiss, rows, rows.complete(), seed),
        krippendorff_alpha=_beyond_chance(_krippendorff, rows, rows.pairable(), seed),
        pairs=tuple(
            PairAgreement(
                (names[first], names[second]),
                int(tables.sum()),
                estimates["agreement"],
                estimates["kappa"],
            )
            for first, second in combinations(raters, 2)
            for tables in [rows.pair_tables([first, second])]
            for estimates in [_of_pairs(tables, seed)]
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

    def pair_tables(self, raters: Sequence[int], chosen: Ints | None = None) -> Floats:
        """Count pairs of verdicts on the same row, of all or some rows, shape (clusters, behaviours, behaviours)."""
        rows = slice(None) if chosen is None else chosen
        codes, cluster = self.codes[:, rows], self.cluster[rows]
        tables = np.zeros((len(self.ids), len(self.behaviours), len(self.behaviours)))
        for first, second in combinations(raters, 2):
            both = (codes[first] >= 0) & (codes[second] >= 0)
            np.add.at(tables, (cluster[both], codes[first][both], codes[second][both]), 1)
        return tables


def _of_pairs(tables: Floats, seed: int) -> dict[str, Estimate]:
    """Return raw agreement and Cohen's kappa of tables of pairs."""
    if not tables.sum():
        return dict.fromkeys(("agreement", "kappa"), UNDEFINED)
    return metric_estimates(tables, (), seed=seed)


def _beyond_chance(coefficient: Callable[[Ints], float | None], rows: _Rows, chosen: Ints, seed: int) -> Estimate:
    """Return a coefficient of agreement on some rows.

    Fleiss' kappa and Krippendorff's alpha compare pairs of verdicts with what the verdicts' shares give by chance, as
    Scott's pi (Scott 1955) of the table of pairs does: its posterior draws, shifted to the coefficient, give the
    interval.
    """
    value = coefficient(rows.counts[chosen])
    if value is None:
        return UNDEFINED
    tables = rows.pair_tables(range(len(rows.codes)), chosen)
    tables = (tables + np.swapaxes(tables, 1, 2)) / 2  # which rater comes first does not matter
    fractions = effective_fractions(tables, _scott, seed)
    if fractions is None:
        return Estimate(value, None)
    table = tables.sum(0)
    pi = float(_scott(table)["pi"])
    drawn = _scott(posterior_draws(table, fractions["pi"], seed))["pi"]
    low, high = drawn_interval(value, np.minimum(drawn + value - pi, 1))
    return Estimate(value, (low, high))


def _scott(tables: Floats) -> dict[str, Floats]:
    total = tables.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        same = np.trace(tables, axis1=-2, axis2=-1) / total
        chance = (((tables.sum(-1) + tables.sum(-2)) / (2 * total[..., None])) ** 2).sum(-1)
        return {"pi": (same - chance) / (1 - chance)}


def _fleiss(counts: Ints) -> float | None:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(counts)) if (counts.sum(0) > 0).sum() > 1 else None


def _krippendorff(counts: Ints) -> float | None:
    import krippendorff

    if (counts.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
