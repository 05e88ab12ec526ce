"""Which model is ahead in a column, and which capabilities a trained model kept: paired tests, Holm-corrected.

A report makes many comparisons, and is read for the few that stand out. The correction is therefore over all of them:
all pairs of ranked models in all columns of all sections (Holm 1979, which controls the probability of any false claim
whatever the dependence of the tests). Averages and joint compliance are among the columns: they follow from the other
scores, but two models may be equal in one and not in the other, and each can be bold. Verdicts on capabilities are
corrected over all trained models and capabilities of the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations

from cst_bench.reporting.flags import UNRANKED
from cst_bench.reporting.leaderboard.board import CapabilityVerdict, ModelRow, Section
from cst_bench.reporting.method_means import method_difference
from cst_bench.reporting.score_cells import Column
from cst_bench.statistics.paired import LEVEL, Difference, holm

Pair = tuple[int, str, int, int]
"""Section, column, and two rows of it."""


def with_verdicts(sections: Sequence[Section]) -> list[Section]:
    """Flag the highest score of each column if it is ahead of every other, and say which capabilities were kept."""
    differences, to_base = dict(_comparisons(sections)), _capability_differences(sections)
    ps = [*(difference.p for difference in differences.values()), *(difference.p for *_, difference in to_base)]
    corrected = iter(holm([1.0 if p is None else p for p in ps]))
    ahead = _shown(differences, [next(corrected) for _ in differences])
    kept = _capability_verdicts(sections, to_base, list(corrected))
    made = []
    for at, section in enumerate(sections):
        best = {column.key: _best_row(section, at, column, ahead) for column in section.columns}
        rows = [
            dataclasses.replace(
                row,
                cells={key: dataclasses.replace(cell, best=best[key] == place) for key, cell in row.cells.items()},
            )
            for place, row in enumerate(section.rows)
        ]
        made.append(dataclasses.replace(section, rows=rows, capabilities=kept[at]))
    return made


def _comparisons(sections: Sequence[Section]) -> Iterator[tuple[Pair, Difference]]:
    """Yield the paired difference of every two ranked models in every column: the first minus the second."""
    for at, section in enumerate(sections):
        for column in section.columns:
            for second, first in combinations(_ranked(section, column), 2):
                row, other = section.rows[first], section.rows[second]
                difference = row.cells[column.key].difference  # to its base, which may be the other one
                if not other.is_base or row.base != other.label:
                    difference = method_difference(row.members, other.members, [column])
                if difference is not None and difference.p is not None:
                    yield (at, column.key, first, second), difference


def _ranked(section: Section, column: Column) -> dict[int, float]:
    """Return the row → score of the models that are ranked in a column."""
    return {
        place: cell.score
        for place, row in enumerate(section.rows)
        if (cell := row.cells.get(column.key)) and cell.score is not None and not UNRANKED & set(cell.flags)
    }


def _shown(differences: Mapping[Pair, Difference], corrected: Sequence[float]) -> set[Pair]:
    """Return the pairs whose difference is significant, the row that is ahead first."""
    ahead = set()
    for ((at, key, first, second), difference), p in zip(differences.items(), corrected, strict=True):
        if p < LEVEL and difference.difference:
            ahead.add((at, key, first, second) if difference.difference > 0 else (at, key, second, first))
    return ahead


def _best_row(section: Section, at: int, column: Column, ahead: Set[Pair]) -> int | None:
    """Return the row that has the highest score of a column and is ahead of all others; None if there is none.

    What is scored in both decides who is ahead: over all, a score may be higher for what the other's judge left
    unscored.
    """
    scores = _ranked(section, column)
    if len(scores) < 2:
        return None
    top = max(scores, key=lambda place: scores[place])
    return top if all((at, column.key, top, place) in ahead for place in scores if place != top) else None


def _capability_differences(sections: Sequence[Section]) -> list[tuple[int, ModelRow, Column, Difference]]:
    """Return the differences of trained models to their base in capabilities, with section, row and column."""
    return [
        (at, row, column, cell.difference)
        for at, section in enumerate(sections)
        for row in section.rows
        for column in section.columns
        if column.kind == "capability" and (cell := row.cells.get(column.key)) and cell.difference is not None
    ]


def _capability_verdicts(
    sections: Sequence[Section],
    differences: Sequence[tuple[int, ModelRow, Column, Difference]],
    corrected: Sequence[float],
) -> list[list[CapabilityVerdict]]:
    """Return for each trained model with a base, and each capability: lost, gained, or no difference shown."""
    verdicts: list[list[CapabilityVerdict]] = [[] for _ in sections]
    for (at, row, column, difference), p in zip(differences, corrected, strict=True):
        if difference.difference is None:
            kept = "undefined"
        elif difference.p is None:
            kept = "not tested"
        else:
            kept = ("gained" if difference.difference > 0 else "lost") if p < LEVEL else "no difference shown"
        holm_p = None if difference.p is None else p
        verdicts[at].append(CapabilityVerdict(row.label, row.title, row.base, column.title, difference, holm_p, kept))
    return verdicts
