"""The paper's tables as forms that runs are put into, with what was published (`reports/published.yaml`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache

from pydantic import Field

from cst_bench import content
from cst_bench.content import Content, content_root
from cst_bench.reporting.leaderboard.board import Column, ModelRow, PaperTable

FILE = "reports/published.yaml"
BASE = "base"

Values = dict[str, dict[str, dict[str, float]]]
"""Base model's hub id → `base`, DPO or CST → column → value."""


class Form(Content):
    """A table of the paper."""

    name: str
    title: str
    columns: list[str] = Field(min_length=1)
    """Titles of columns, without `Avg.`."""
    average: bool = True
    """Whether the paper's table ends with their mean."""
    percent: bool = False
    tasks: list[str] = Field(min_length=1)
    """What the published values were measured on: they are shown beside scores on these tasks alone."""
    published: Values


class _File(Content):
    source: str
    tables: list[Form] = Field(min_length=1)


@cache
def forms() -> tuple[Form, ...]:
    """Tables I to III."""
    return tuple(content.load(content_root() / FILE, _File).tables)


def form(name: str) -> Form:
    """A table by its name.

    Raises:
        KeyError: there is none.
    """
    return {one.name: one for one in forms()}[name]


def published_value(table: Form, base: str, method: str | None, column: str) -> float | None:
    """What was published of a base (by its hub id) and a method, in one column of a table."""
    return table.published.get(base, {}).get(method or BASE, {}).get(column)


def paper_tables(columns: Sequence[Column], rows: Sequence[ModelRow]) -> list[PaperTable]:
    """The tables whose columns are there: I where only its two configurations are averaged, II where all four are."""
    made = []
    averaged = [column.title for column in columns if column.kind == "compliance" and _in_average(column, columns)]
    for one in forms():
        kind = "capability" if one.percent else "compliance"
        chosen = [column for column in columns if column.kind == kind and column.title in one.columns]
        titles = [column.title for column in chosen]
        if sorted(titles) != sorted(one.columns) or (kind == "compliance" and sorted(averaged) != sorted(titles)):
            continue
        ordered = sorted(chosen, key=lambda column: one.columns.index(column.title))
        if one.average:
            ordered += [column for column in columns if column.kind == f"{kind}_average"]
        same_tasks = {column.task for column in chosen} <= set(one.tasks)
        with_values = [_with_published(one, ordered, row) if same_tasks else row for row in rows]
        made.append(PaperTable(one.title, ordered, with_values))
    return made


def _in_average(column: Column, columns: Sequence[Column]) -> bool:
    """Averaged configurations stand before their mean; without a mean, all count."""
    keys = [one.key for one in columns]
    if "average/compliance" not in keys:
        return True
    return keys.index(column.key) < keys.index("average/compliance")


def _with_published(table: Form, columns: Sequence[Column], row: ModelRow) -> ModelRow:
    base = row.run.label if row.is_base else row.run.base
    cells = dict(row.cells)
    for column in columns:
        if column.key in cells:
            value = published_value(table, base, row.method, column.title)
            cells[column.key] = dataclasses.replace(cells[column.key], published=value)
    return dataclasses.replace(row, cells=cells)
