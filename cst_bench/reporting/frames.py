"""Scores, outcomes and comparisons as pandas data frames, and as small Markdown tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.record import USELESS
from cst_bench.reporting.score_cells import Cell, Column, cell_of, columns_of

if TYPE_CHECKING:
    import pandas

    from cst_bench.reporting.comparison.comparison import Comparison
    from cst_bench.reporting.leaderboard.board import Leaderboard
    from cst_bench.reporting.stored_run import StoredRun


def run_frame(run: StoredRun) -> pandas.DataFrame:
    """Return the scores of a run, one row per score; scores and intervals are shares in 0 to 1."""
    cells = ((column, cell_of(run, column)) for column in columns_of([run]))
    return _frame([{"model": run.label, **_score(column, cell)} for column, cell in cells if cell is not None])


def leaderboard_frame(board: Leaderboard) -> pandas.DataFrame:
    """Return the scores of a report, one row per model and score, with the paired difference to the base."""
    rows: list[dict[str, object]] = []
    for section in board.sections:
        for row in section.rows:
            for column in section.columns:
                cell = row.cells.get(column.key)
                if cell is None:
                    continue
                difference = cell.difference
                low, high = (None, None) if difference is None or difference.interval is None else difference.interval
                rows.append(
                    {
                        "section": section.title,
                        "model": row.label,
                        "base": row.base,
                        "method": row.method,
                        **_score(column, cell),
                        "best": cell.best,
                        "difference": None if difference is None else difference.difference,
                        "difference_low": low,
                        "difference_high": high,
                        "p": None if difference is None else difference.p,
                    }
                )
    return _frame(rows)


def comparison_frame(comparison: Comparison) -> pandas.DataFrame:
    """Return a comparison, one row per score: run minus baseline, paired, as shares."""
    rows: list[dict[str, object]] = []
    for score in comparison.scores:
        low, high = score.difference.interval or (None, None)
        rows.append(
            {
                "score": score.column.title,
                "task": score.column.task,
                "kind": score.column.kind,
                "baseline": score.baseline,
                "run": score.score,
                "difference": score.difference.difference,
                "low": low,
                "high": high,
                "p": score.difference.p,
                "p_holm": score.p_holm,
                "detectable": score.detectable,
                "n": score.difference.n,
                "gained": len(score.difference.gained),
                "lost": len(score.difference.lost),
                "test": score.difference.test,
                "flags": " ".join(score.flags),
            }
        )
    return _frame(rows)


def outcomes_frame(run: StoredRun) -> pandas.DataFrame:
    """Return one row per response: task, configuration, prompt id, behaviour, and whether it complied.

    Behaviour and `complied` are None for unscored responses; `complied` is None with no system prompt, too.
    """
    return _frame(list(_outcomes(run)))


def documents_frame(run: StoredRun) -> pandas.DataFrame:
    """Return one row per document of the capability tasks, with its score in the task's metric."""
    return _frame(
        [
            {"task": task, "document": document, "score": score}
            for task in run.outcomes.capabilities
            for document, score in run.documents(task).items()
        ]
    )


def _outcomes(run: StoredRun) -> Iterator[dict[str, object]]:
    for task, configurations in run.outcomes.compliance.items():
        for configuration in configurations:
            asked = None if configuration == REFERENCE else run.configurations(task)[configuration]
            for prompt, behaviours in run.behaviours(task, configuration).items():
                for behaviour in behaviours:
                    yield {
                        "task": task,
                        "configuration": configuration,
                        "prompt_id": prompt,
                        "asked": asked,
                        "behaviour": behaviour,
                        "complied": None if behaviour is None or asked is None else behaviour == asked,
                    }


def _score(column: Column, cell: Cell) -> dict[str, object]:
    low, high = cell.interval or (None, None)
    return {
        "task": column.task,
        "score_name": column.title,
        "kind": column.kind,
        "score": cell.score,
        "low": low,
        "high": high,
        "seeds": cell.seeds,
        "n": cell.n,
        "unscored": cell.unscored,
        **{name.replace(" ", "_"): cell.useless.get(name, 0) for name in USELESS},
        "flags": " ".join(cell.flags),
        "corrected": cell.corrected,
    }


def _frame(rows: Sequence[dict[str, object]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(rows)
