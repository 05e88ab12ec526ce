"""A report of several runs as CSV (a row for each model and score) and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from cst_bench.files import json_text
from cst_bench.reporting.leaderboard.board import Leaderboard, ModelRow, Section
from cst_bench.reporting.score_cells import Cell, Column
from cst_bench.reporting.side_effects import SideEffectTable

_FIELDS = (
    "section",
    "model",
    "base",
    "method",
    "column",
    "task",
    "score",
    "low",
    "high",
    "seeds",
    "seed_low",
    "seed_high",
    "n",
    "unscored",
    "lowest_possible",
    "highest_possible",
    "flags",
    "best",
    "corrected",
    "corrected_low",
    "corrected_high",
    "corrected_by",
    "difference_to_base",
    "difference_low",
    "difference_high",
    "p",
    "published",
)


def csv_report(board: Leaderboard) -> str:
    """Return one row for each model and score, in full precision; undefined values are empty.

    A cell that a spreadsheet would evaluate as a formula has an apostrophe before it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    for section in board.sections:
        for row, column, cell in _cells(section):
            writer.writerow([_harmless(value) for value in _line(section, row, column, cell)])
    return text.getvalue()


def _cells(section: Section) -> Iterator[tuple[ModelRow, Column, Cell]]:
    for row in section.rows:
        for column in section.columns:
            if column.key in row.cells:
                yield row, column, row.cells[column.key]


def _line(section: Section, row: ModelRow, column: Column, cell: Cell) -> list[object]:
    low, high = cell.interval or (None, None)
    corrected_low, corrected_high = cell.corrected_interval or (None, None)
    difference = cell.difference
    ends = (None, None) if difference is None or difference.interval is None else difference.interval
    in_tables = [
        paper_row.cells[column.key].published
        for table in section.tables
        if column in table.columns
        for model, paper_row in zip(section.rows, table.rows, strict=True)
        if model is row and column.key in paper_row.cells
    ]
    return [
        *(section.title, row.label, row.base, row.method, column.title, column.task),
        *(
            cell.score,
            low,
            high,
            cell.seeds,
            *(cell.seed_range or (None, None)),
            cell.n,
            cell.unscored,
            *(cell.bounds or (None, None)),
            " ".join(cell.flags),
            int(cell.best),
        ),
        *(cell.corrected, corrected_low, corrected_high, cell.corrected_by),
        *((None, None, None, None) if difference is None else (difference.difference, *ends, difference.p)),
        next((value for value in in_tables if value is not None), None),
    ]


def _harmless(value: object) -> object:
    if isinstance(value, str):
        text = value.replace("\r", " ").replace("\x00", "")
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
    return value


def json_report(board: Leaderboard) -> str:
    """Return the whole content as JSON."""
    return json_text(_plain(board))


def _plain(board: Leaderboard) -> dict[str, object]:
    return {
        "schema": 3,
        "title": board.title,
        "sections": [_section(section) for section in board.sections],
        "flags": dict(board.flags),
        "notes": list(board.notes),
        "runs": [
            {"model": run.label, "receipt": run.receipt, "facts": [list(fact) for fact in run.facts]}
            for run in board.runs
        ],
    }


def _section(section: Section) -> dict[str, object]:
    return {
        "title": section.title,
        "why": list(section.why),
        "columns": [asdict(column) for column in section.columns],
        "models": [_row(row) for row in section.rows],
        "tables": [
            {
                "title": table.title,
                "columns": [column.key for column in table.columns],
                "published": {
                    model.label: {key: cell.published for key, cell in row.cells.items() if cell.published is not None}
                    for model, row in zip(section.rows, table.rows, strict=True)
                },
            }
            for table in section.tables
        ],
        "capabilities": [asdict(verdict) for verdict in section.capabilities],
        "judges": [asdict(judge) for judge in section.judges],
        **({} if section.side_effects is None else {"side_effects": _side_effects(section.side_effects)}),
    }


def _side_effects(table: SideEffectTable) -> dict[str, object]:
    return {
        "kl_bases": list(table.kl_bases),
        "rows": [
            {
                "model": row.label,
                "task": row.task,
                "configuration": row.configuration,
                "measures": {name: asdict(cell) for name, cell in row.cells.items()},
            }
            for row in table.rows
        ],
    }


def _row(row: ModelRow) -> dict[str, object]:
    return {
        "model": row.label,
        "title": row.title,
        "method": row.method,
        "base": row.base,
        "is_base": row.is_base,
        "scores": _scores(row.cells),
        "seeds": [{"seed": seed.seed, "model": seed.label, "scores": _scores(seed.cells)} for seed in row.seeds],
    }


def _scores(cells: Mapping[str, Cell]) -> dict[str, object]:
    return {
        key: {
            name: value
            for name, value in asdict(cell).items()
            if name != "published" and not (name in ("useless", "uncorrected") and not value)
        }
        for key, cell in cells.items()
    }
