"""How far judges (or judges and labellers) agree on the same responses, beyond what chance would make them.

An undefined figure is None: kappa and alpha are so when all verdicts are one behaviour, since chance alone then agrees
as well. Intervals are bootstrap percentiles over clusters, since responses to one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cst_bench.escape import cell

if TYPE_CHECKING:
    from rich.table import Table

RESAMPLES = 1000
_DEFINED_SHARE = 0.95
"""Of the resamples, for an interval to mean anything."""


def agreement(
    names: Sequence[str],
    columns: Sequence[Sequence[str | None]],
    clusters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Agreement of two or more raters of the same rows, each figure with a bootstrap 95 % interval.

    Args:
        names: Of the raters: judges, or those who labelled.
        columns: What each rater says of each row: a behaviour, or None for unscored, which counts as missing.
        clusters: Of each row; rows of one cluster (one prompt) are resampled together.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        `n`, `clusters`, `behaviours`, `scored` (by rater), `raw` (share of pairs of verdicts on one row that are the
        same), `fleiss_kappa` (Fleiss 1971, on the `n_complete` rows that all scored), `krippendorff_alpha` (nominal,
        on all rows that two or more scored), and `pairs`: for each two raters `raters`, `n` (rows both scored), `raw`
        and `kappa` (Cohen 1960). A figure is `{"value": …, "interval": [low, high]}`, None where undefined.

    Raises:
        ValueError: fewer than two raters, or columns of unequal length.
    """
    if len(names) < 2 or len(names) != len(columns) or {len(column) for column in columns} != {len(clusters)}:
        raise ValueError("agreement needs two raters or more, and a verdict or None of each for every row")
    rows = _Rows.of(columns, clusters)
    draws = _draws(len(rows.ids), resamples, seed)
    every = list(range(len(names)))
    return {
        "n": len(clusters),
        "clusters": len(rows.ids),
        "behaviours": rows.behaviours,
        "scored": {name: sum(verdict is not None for verdict in column) for name, column in zip(names, columns)},
        "raw": _figure(rows.table_of_pairs(every), draws, _raw),
        "n_complete": len(rows.complete()),
        "fleiss_kappa": _figure_of_rows(rows.counts, rows.complete(), rows.cluster, draws, _fleiss),
        "krippendorff_alpha": _figure_of_rows(rows.counts, rows.pairable(), rows.cluster, draws, _krippendorff),
        "pairs": [
            {
                "raters": [names[one], names[other]],
                "n": int(tables.sum()),
                "raw": _figure(tables, draws, _raw),
                "kappa": _figure(tables, draws, _cohen),
            }
            for one, other in combinations(every, 2)
            for tables in [rows.table_of_pairs([one, other])]
        ],
    }


@dataclass(frozen=True)
class _Rows:
    """Verdicts as numbers."""

    behaviours: list[str]
    codes: Any
    """[raters, rows]: which behaviour, -1 for unscored."""
    counts: Any
    """[rows, behaviours]: how many raters say it."""
    ids: list[str]
    """The clusters."""
    cluster: Any
    """[rows]: which of them."""

    @staticmethod
    def of(columns: Sequence[Sequence[str | None]], clusters: Sequence[str]) -> _Rows:
        import numpy as np

        behaviours = sorted({verdict for column in columns for verdict in column if verdict is not None})
        code: dict[str | None, int] = {behaviour: index for index, behaviour in enumerate(behaviours)}
        code[None] = -1
        codes = np.array([[code[verdict] for verdict in column] for column in columns], dtype=int)
        counts = np.stack([(codes == index).sum(0) for index in range(len(behaviours))] or [codes.sum(0)[:0]], axis=-1)
        ids = sorted(set(clusters))
        number = {name: index for index, name in enumerate(ids)}
        return _Rows(behaviours, codes, counts, ids, np.array([number[name] for name in clusters], dtype=int))

    def complete(self) -> Any:
        """The rows that all scored."""
        return (self.codes >= 0).all(0).nonzero()[0]

    def pairable(self) -> Any:
        """The rows that two or more scored."""
        return ((self.codes >= 0).sum(0) >= 2).nonzero()[0]

    def table_of_pairs(self, raters: Sequence[int]) -> Any:
        """[clusters, behaviours, behaviours]: how often one rater says this and a later one that, of the same row."""
        import numpy as np

        size = len(self.behaviours)
        tables = np.zeros((len(self.ids), size, size))
        for one, other in combinations(raters, 2):
            both = (self.codes[one] >= 0) & (self.codes[other] >= 0)
            np.add.at(tables, (self.cluster[both], self.codes[one][both], self.codes[other][both]), 1)
        return tables


def _draws(clusters: int, resamples: int, seed: int) -> Any:
    """[resamples, clusters]: how often each cluster is drawn; no resamples of one cluster, which has no spread."""
    import numpy as np

    if clusters < 2:
        return np.zeros((0, clusters), dtype=int)
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def _figure(tables: Any, draws: Any, statistic: Callable[[Any], float | None]) -> dict[str, Any]:
    """A statistic of a table of pairs, summed over clusters."""
    import numpy as np

    resampled = np.tensordot(draws, tables, axes=1)
    return _with_interval(statistic(tables.sum(0)), [statistic(table) for table in resampled])


def _figure_of_rows(
    counts: Any, rows: Any, cluster: Any, draws: Any, statistic: Callable[[Any], float | None]
) -> dict[str, Any]:
    """A statistic of the counts of some rows."""
    import numpy as np

    kept, clusters = counts[rows], cluster[rows]
    return _with_interval(statistic(kept), [statistic(np.repeat(kept, draw[clusters], axis=0)) for draw in draws])


def _with_interval(value: float | None, resampled: Sequence[float | None]) -> dict[str, Any]:
    import numpy as np

    defined = [one for one in resampled if one is not None]
    if value is None or not defined or len(defined) < _DEFINED_SHARE * len(resampled):
        return {"value": value, "interval": None}
    low, high = np.percentile(defined, [2.5, 97.5])
    return {"value": value, "interval": [float(low), float(high)]}


def _raw(table: Any) -> float | None:
    total = float(table.sum())
    return float(table.trace()) / total if total else None


def _cohen(table: Any) -> float | None:
    from statsmodels.stats.inter_rater import cohens_kappa

    total = table.sum()
    if not total or (table.sum(0) * table.sum(1)).sum() == total**2:  # chance agrees on every row
        return None
    return float(cohens_kappa(table, return_results=False))


def _fleiss(counts: Any) -> float | None:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(counts)) if (counts.sum(0) > 0).sum() > 1 else None


def _krippendorff(counts: Any) -> float | None:
    import krippendorff

    if (counts.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


_HEADER = ("Raters", "n", "Raw agreement", "Kappa or alpha")


def agreement_rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The lines of a table of an `agreement`: raters, n, raw agreement, and the figure that corrects it for chance."""
    lines = [
        (" and ".join(pair["raters"]), str(pair["n"]), _shown(pair["raw"]), f"Cohen's kappa {_shown(pair['kappa'])}")
        for pair in result["pairs"]
    ]
    if len(result["scored"]) > 2:
        fleiss = f"Fleiss' kappa {_shown(result['fleiss_kappa'])}"
        lines.append(("all, on rows that all scored", str(result["n_complete"]), "", fleiss))
    alpha = f"Krippendorff's alpha {_shown(result['krippendorff_alpha'])}"
    return [*lines, ("all", str(result["n"]), _shown(result["raw"]), alpha)]


def agreement_markdown(result: dict[str, Any]) -> str:
    """A Markdown table of an `agreement`."""
    lines = [_HEADER, ("---", "---:", "---:", "---")]
    escaped = [tuple(cell(text) for text in line) for line in agreement_rows(result)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (*lines, *escaped))


def agreement_table(result: dict[str, Any]) -> Table:
    """A table of an `agreement` for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Agreement")
    for name, justify in zip(_HEADER, ("left", "right", "right", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for line in agreement_rows(result):
        table.add_row(*map(escape, line))
    return table


def _shown(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "undefined"
    if figure["interval"] is None:
        return f"{figure['value']:.2f}"
    low, high = figure["interval"]
    return f"{figure['value']:.2f} [{low:.2f}, {high:.2f}]"
