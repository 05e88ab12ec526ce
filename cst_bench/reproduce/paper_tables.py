"""The paper's tables from a reproduction's runs: means over seeds, beside the published values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from cst_bench.reporting.flags import used_flags
from cst_bench.reporting.method_means import mean_cell, method_difference
from cst_bench.reporting.published_values import published_table, published_value
from cst_bench.reporting.score_cells import Cell, Column, ColumnKind, ScoreTable, SeedRow, TableRow, cell_of, columns_of
from cst_bench.reporting.stored_run import METHODS, StoredRun
from cst_bench.reproduce.steps import BASE, Reproduction, TableForm
from cst_bench.statistics.intervals import mean_interval

RunKey = tuple[str, str, str]
"""Model, set, and `base` or variant."""


def make_tables(plan: Reproduction, runs: Mapping[RunKey, Sequence[StoredRun]]) -> list[ScoreTable]:
    """Return the tables of a reproduction.

    Args:
        plan: The reproduction.
        runs: (model, set, `base` or variant) → its runs, one for each seed.
    """
    return [_table(plan, form, runs) for form in plan.tables]


def flags_in(tables: Sequence[ScoreTable], runs: Mapping[RunKey, Sequence[StoredRun]]) -> dict[str, str]:
    """Return the flags of tables, and their meanings, with the reasons in the runs."""
    flags = (flag for table in tables for row in table.rows for cell in row.cells.values() for flag in cell.flags)
    return used_flags(flags, (run.scores for of_key in runs.values() for run in of_key))


def _table(plan: Reproduction, form: TableForm, runs: Mapping[RunKey, Sequence[StoredRun]]) -> ScoreTable:
    all_runs = [run for key in runs if key[1] == form.set for run in runs[key]]
    columns = _columns(form, all_runs)
    rows = []
    for name, model in plan.models.items():
        base = runs[name, form.set, BASE]
        for variant in (BASE, *plan.sets[form.set].variants):
            method = None if variant == BASE else METHODS[plan.variants[variant].method]
            title = model.title if variant == BASE else f"+ {plan.variants[variant].title}"
            row = _row(form, columns, title, runs[name, form.set, variant], None if variant == BASE else base)
            cells = {
                column.key: dataclasses.replace(
                    row.cells[column.key], published=_published(form, model.checkpoint, method, column)
                )
                for column in columns
            }
            rows.append(dataclasses.replace(row, cells=cells))
    return ScoreTable(form.title, columns, rows)


def _row(
    form: TableForm, columns: Sequence[Column], title: str, runs: Sequence[StoredRun], base: Sequence[StoredRun] | None
) -> TableRow:
    """Return the mean over runs of a variant, one for each seed, with the difference to the base."""
    single = columns[:-1] if form.average else columns
    by_run = [_cells(columns, form.average, run) for run in runs]
    cells = {}
    for column in columns:
        over = [column] if column in single else single
        mean = mean_cell(runs, over, [row[column.key] for row in by_run])
        difference = None if base is None else method_difference(runs, base, over)
        cells[column.key] = dataclasses.replace(mean, difference=difference)
    seeds = [SeedRow(_seed(run), run.label, row) for run, row in zip(runs, by_run, strict=True)]
    return TableRow(title, cells, seeds if len(runs) > 1 else ())


def _seed(run: StoredRun) -> int:
    return 0 if run.training is None else run.training.seed


def _columns(form: TableForm, runs: Sequence[StoredRun]) -> list[Column]:
    """Return the columns of a table: by title among the runs' configurations and capabilities, then Avg."""
    kind = "capability" if form.percent else "compliance"
    by_title = {column.title: column for column in columns_of(runs) if column.kind == kind}
    missing = {title: Column(title, title, "compliance", percent=form.percent) for title in form.columns}
    columns = [(missing | by_title)[title] for title in form.columns]
    if form.average:
        average: ColumnKind = "capability_average" if form.percent else "compliance_average"
        columns.append(Column("average", "Avg.", average, percent=form.percent))
    return columns


def _cells(columns: Sequence[Column], average: bool, run: StoredRun) -> dict[str, Cell]:
    """Return the cells of one run; the average is over the table's columns."""
    single = columns[:-1] if average else columns
    cells = {column.key: cell_of(run, column) or Cell(None, None, 0) for column in single}
    if average:
        parts = list(cells.values())
        score, interval = mean_interval([cell.score for cell in parts], [cell.interval for cell in parts])
        flags = tuple(dict.fromkeys(flag for cell in parts for flag in cell.flags))
        total, unscored = sum(cell.n for cell in parts), sum(cell.unscored for cell in parts)
        cells[columns[-1].key] = Cell(score, interval, total, unscored, flags)
    return cells


def _published(form: TableForm, checkpoint: str, method: str | None, column: Column) -> float | None:
    if form.published is None:
        return None
    return published_value(published_table(form.published), checkpoint, method, column.title)
