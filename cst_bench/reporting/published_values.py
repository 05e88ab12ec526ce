"""The paper's tables as forms for the scores of runs, with the published values (`reports/published.yaml`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Sequence
from functools import cache

from pydantic import Field

from cst_bench import content
from cst_bench.content import Content, content_root
from cst_bench.reporting.leaderboard.board import ModelRow
from cst_bench.reporting.score_cells import Column, ScoreTable

FILE = "reports/published.yaml"
BASE = "base"

Values = dict[str, dict[str, dict[str, float]]]
"""Base model's hub id → `base`, DPO or CST → column → value."""


class PublishedTable(Content):
    """A table of the paper."""

    name: str
    title: str
    columns: list[str] = Field(min_length=1)
    """Column titles, without `Avg.`."""
    average: bool = True
    """The paper's table ends with their mean."""
    percent: bool = False
    tasks: list[str] = Field(min_length=1)
    """Tasks that the published values were measured on: they are shown beside scores on these tasks only."""
    published: Values


class _File(Content):
    source: str
    tables: list[PublishedTable] = Field(min_length=1)


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Load Tables I to III."""
    return tuple(content.load(content_root() / FILE, _File).tables)


def published_table(name: str) -> PublishedTable:
    """Return a table by its name.

    Raises:
        KeyError: there is no such table.
    """
    return {table.name: table for table in published_tables()}[name]


def published_value(table: PublishedTable, base: str, method: str | None, column: str) -> float | None:
    """Return the published value of a base (by its Hub id) and a method, in one column of a table."""
    return table.published.get(base, {}).get(method or BASE, {}).get(column)


def other_models(table: PublishedTable, bases: Container[str]) -> Iterator[tuple[str, str | None, dict[str, float]]]:
    """Yield (base, method, column → value) of the models in a published table whose base is not among these."""
    for base, methods in table.published.items():
        if base not in bases:
            for name, values in methods.items():
                yield base, None if name == BASE else name, values


def paper_tables(columns: Sequence[Column], rows: Sequence[ModelRow]) -> list[ScoreTable]:
    """Make the tables whose columns are there: I if only its two configurations are averaged, II if all four are."""
    tables = []
    averaged = [column.title for column in columns if column.kind == "compliance" and _in_average(column, columns)]
    for published in published_tables():
        kind = "capability" if published.percent else "compliance"
        chosen = [column for column in columns if column.kind == kind and column.title in published.columns]
        titles = [column.title for column in chosen]
        complete = sorted(titles) == sorted(published.columns)
        if not complete or (kind == "compliance" and sorted(averaged) != sorted(titles)):
            continue
        ordered = sorted(chosen, key=lambda column: published.columns.index(column.title))
        if published.average:
            ordered += [column for column in columns if column.kind == f"{kind}_average"]
        same_tasks = {column.task for column in chosen} <= set(published.tasks)
        table_rows = [_with_published(published, ordered, row) if same_tasks else row for row in rows]
        tables.append(ScoreTable(published.title, ordered, table_rows))
    return tables


def _in_average(column: Column, columns: Sequence[Column]) -> bool:
    """Return whether a configuration is averaged: it comes before the average; without an average, all are."""
    keys = [other.key for other in columns]
    if "average/compliance" not in keys:
        return True
    return keys.index(column.key) < keys.index("average/compliance")


def _with_published(table: PublishedTable, columns: Sequence[Column], row: ModelRow) -> ModelRow:
    base = row.run.label if row.is_base else row.run.base
    cells = dict(row.cells)
    for column in columns:
        if column.key in cells:
            value = published_value(table, base, row.method, column.title)
            cells[column.key] = dataclasses.replace(cells[column.key], published=value)
    return dataclasses.replace(row, cells=cells)
