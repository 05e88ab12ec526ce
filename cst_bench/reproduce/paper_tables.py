"""The paper's tables from the scores of a reproduction's runs: means over seeds, beside what was published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cst_bench.reporting.published_values import form as published_form
from cst_bench.reporting.published_values import published_value
from cst_bench.reporting.run_report import FLAGS, flags_of
from cst_bench.reporting.stored_run import METHODS
from cst_bench.reproduce.steps import BASE, Reproduction, TableForm
from cst_bench.runs.scoring import mean_score

_NO_COLUMN = ("joint", "reference")
Scores = Mapping[str, Any]
"""The content of a run's `scores.json`, or one entry in it."""


@dataclass(frozen=True)
class Cell:
    """A score: of one run with that run's interval, or the mean over seeds with a t interval over them."""

    score: float | None
    interval: tuple[float, float] | None
    published: float | None
    flags: tuple[str, ...] = ()
    """Footnotes that hold for it in some run, such as `unscored`."""


@dataclass(frozen=True)
class TableRow:
    """A model in a table."""

    model: str
    variant: str
    runs: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class ReproducedTable:
    """A table in the paper's form."""

    title: str
    columns: Sequence[str]
    percent: bool
    rows: Sequence[TableRow]


def make_tables(plan: Reproduction, scores: Mapping[tuple[str, str, str], Sequence[Scores]]) -> list[ReproducedTable]:
    """The tables of a reproduction.

    Args:
        plan: What was reproduced.
        scores: (model, set, `base` or variant) → the scores of its runs, one for each seed.
    """
    return [_table(plan, form, scores) for form in plan.tables]


def footnotes(tables: Sequence[ReproducedTable]) -> dict[str, str]:
    """What each flag means that is in some table."""
    used = {flag for table in tables for row in table.rows for cell in row.cells for flag in cell.flags}
    return {flag: text for flag, text in FLAGS.items() if flag in used}


def _table(
    plan: Reproduction, form: TableForm, scores: Mapping[tuple[str, str, str], Sequence[Scores]]
) -> ReproducedTable:
    columns = [*form.columns, *(["Avg."] if form.average else [])]
    rows = []
    for name, model in plan.models.items():
        for variant in (BASE, *plan.sets[form.set].variants):
            runs = scores[name, form.set, variant]
            method = None if variant == BASE else METHODS[plan.variants[variant].method]
            values = [_values(form, run) for run in runs]
            cells = [
                _cell(
                    [row[at] for row in values],
                    _published(form, model.checkpoint, method, column),
                    _marks(form.columns if at == len(form.columns) else [column], runs),
                )
                for at, column in enumerate(columns)
            ]
            title = model.title if variant == BASE else f"+ {plan.variants[variant].title}"
            rows.append(TableRow(name, title, len(runs), cells))
    return ReproducedTable(form.title, columns, form.percent, rows)


def _published(form: TableForm, checkpoint: str, method: str | None, column: str) -> float | None:
    if form.published is None:
        return None
    return published_value(published_form(form.published), checkpoint, method, column)


def _values(form: TableForm, run: Scores) -> list[Scores]:
    """`score` and `interval` of each column in one run."""
    found = [_value(column, run) for column in form.columns]
    return [*found, mean_score(found)] if form.average else found


def _value(column: str, run: Scores) -> Scores:
    for task in run["compliance"].values():
        if column in task and column not in _NO_COLUMN:
            return dict(task[column])
    for capability in run["capabilities"].values():
        if capability["title"] == column:
            return dict(capability)
    return {"score": None, "interval": None}


def _marks(columns: Sequence[str], runs: Sequence[Scores]) -> tuple[str, ...]:
    """Footnotes of configurations in any run; an average has those of what it is over."""
    found = (
        flag
        for run in runs
        for name, task in run["compliance"].items()
        for column in columns
        if column in task and column not in _NO_COLUMN
        for flag in flags_of(run, name, task[column])
    )
    return tuple(dict.fromkeys(found))


def _cell(values: Sequence[Scores], published: float | None, flags: tuple[str, ...]) -> Cell:
    scores = [value["score"] for value in values]
    if not scores or None in scores:
        return Cell(None, None, published, flags)
    if len(values) == 1:
        interval = values[0]["interval"]
        return Cell(scores[0], None if interval is None else (interval[0], interval[1]), published, flags)
    return Cell(statistics.fmean(scores), t_interval(scores), published, flags)


def t_interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean over seeds (Student's t), cut off at 0 and 1: of training, not of the prompts."""
    from scipy.stats import t

    mean = statistics.fmean(scores)
    half = float(t.ppf(0.975, len(scores) - 1)) * statistics.stdev(scores) / math.sqrt(len(scores))
    return max(0.0, mean - half), min(1.0, mean + half)
