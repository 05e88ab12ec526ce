"""Which model is ahead in a column, and which capabilities a trained model kept: paired tests, Holm-corrected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cst_bench.reporting.differences import difference_of
from cst_bench.reporting.flags import UNRANKED
from cst_bench.reporting.leaderboard.board import CapabilityVerdict, ModelRow
from cst_bench.reporting.score_cells import Column
from cst_bench.statistics.paired import LEVEL, holm


def with_best(rows: Sequence[ModelRow], columns: Sequence[Column]) -> list[ModelRow]:
    """Flag the highest score of each column if it is ahead of every other by the paired test, Holm-corrected."""
    best = {(at, column.key) for column in columns if (at := _best_row(rows, column)) is not None}
    return [
        dataclasses.replace(
            row, cells={key: dataclasses.replace(cell, best=(at, key) in best) for key, cell in row.cells.items()}
        )
        for at, row in enumerate(rows)
    ]


def _best_row(rows: Sequence[ModelRow], column: Column) -> int | None:
    """Return the index of the row that is ahead of all others in a column; None if there is none."""
    scores = {
        at: cell.score
        for at, row in enumerate(rows)
        if (cell := row.cells.get(column.key)) and cell.score is not None and not UNRANKED & set(cell.flags)
    }
    if len(scores) < 2:
        return None
    top = max(scores, key=lambda at: scores[at])
    others = [at for at in scores if at != top]
    if any(scores[at] == scores[top] for at in others):
        return None
    # what is scored in both decides: over all, a score may be higher for what the other's judge left unscored
    differences = [difference_of(rows[top].run, rows[at].run, column) for at in others]
    ps = []
    for difference in differences:
        if difference is None or difference.difference is None or difference.difference <= 0:
            return None
        ps.append(1.0 if difference.p is None else difference.p)
    return top if all(p < LEVEL for p in holm(ps)) else None


def capability_verdicts(columns: Sequence[Column], rows: Sequence[ModelRow]) -> list[CapabilityVerdict]:
    """Return for each trained model with a base, and each capability: lost, gained, or no difference shown."""
    verdicts = []
    for row in rows:
        differences = [
            (column, cell.difference)
            for column in columns
            if column.kind == "capability" and (cell := row.cells.get(column.key)) and cell.difference is not None
        ]
        corrected = iter(holm([difference.p for _, difference in differences if difference.p is not None]))
        for column, difference in differences:
            if difference.difference is None:
                p, kept = None, "undefined"
            else:
                p = next(corrected)
                kept = ("gained" if difference.difference > 0 else "lost") if p < LEVEL else "no difference shown"
            verdicts.append(CapabilityVerdict(row.label, row.title, row.base, column.title, difference, p, kept))
    return verdicts
