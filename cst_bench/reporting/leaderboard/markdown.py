"""The Markdown report of several runs, from `reports/templates/leaderboard.md.j2`. Every value that is put in is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cst_bench.content import content_root
from cst_bench.escape import html_text
from cst_bench.reporting.leaderboard.board import Cell, Column, Leaderboard, ModelRow, PaperTable, Section
from cst_bench.numbers import ends, number, p_value, signed, signed_ends
from cst_bench.reporting.plots.draw import Plot
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.reporting.run_report import LETTERS

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that stand in one table: all of compliance, or all capabilities."""

    title: str
    columns: Sequence[Column]


def markdown_report(board: Leaderboard, plots: Sequence[Plot]) -> str:
    """The report; plots are expected in `plots/NAME.svg` beside it."""
    environment = markdown_environment(content_root() / "reports" / "templates")
    environment.filters.update(
        column_groups=column_groups,
        score_cell=_score_cell,
        paper_cell=_paper_cell,
        has_published=has_published,
        corrected_cells=corrected_cells,
        signed=lambda value, scale: Markup(signed(value, scale)),
        signed_ends=lambda interval, scale: Markup(signed_ends(interval, scale)),
        ends=lambda interval: Markup(ends(interval, 1)),
        p_value=lambda value: Markup(p_value(value)),
        html_text=html_text,
        filename=lambda name: Markup(name),
        short_hash=short_hash,
    )
    text = environment.get_template("leaderboard.md.j2").render(board=board, plots=plots)
    return re.sub(r"\n{3,}", "\n\n", text)


def column_groups(section: Section) -> list[ColumnGroup]:
    """The section's columns as tables: compliance, then capabilities."""
    groups = [
        ColumnGroup("compliance", [column for column in section.columns if not column.percent]),
        ColumnGroup("capabilities", [column for column in section.columns if column.percent]),
    ]
    return [group for group in groups if group.columns]


def corrected_cells(section: Section) -> Iterator[tuple[ModelRow, Column, Cell]]:
    """Scores that have the judge's error in them, too."""
    for row in section.rows:
        for column in section.columns:
            cell = row.cells.get(column.key)
            if cell is not None and cell.corrected is not None:
                yield row, column, cell


def has_published(table: PaperTable) -> bool:
    """Whether a cell of a table has a published value."""
    return any(cell.published is not None for row in table.rows for cell in row.cells.values())


def short_hash(text: str) -> str:
    """A SHA-256 by its first 12 digits; other text as it is."""
    return f"{text[:12]}…" if _SHA256.fullmatch(text) else text


def _score_cell(row: ModelRow, column: Column) -> Markup:
    """Score, flags, interval, n, and the difference to the base, one below the other."""
    cell = row.cells.get(column.key)
    if cell is None:
        return Markup("–")
    scale = 100 if column.percent else 1
    score = number(cell.score, scale)
    small = [ends(cell.interval, scale), f"n {cell.n}" + (f", {cell.unscored} unscored" if cell.unscored else "")]
    if cell.difference is not None and cell.difference.difference is not None:
        small.append(f"{signed(cell.difference.difference, scale)} to base")
    lines = "".join(f"<br><sub>{line}</sub>" for line in small)
    return Markup(f"{f'**{score}**' if cell.best else score}{_letters(cell)}{lines}")


def _paper_cell(row: ModelRow, column: Column) -> Markup:
    """The score, and small the published one."""
    cell = row.cells.get(column.key)
    if cell is None:
        return Markup("–")
    scale = 100 if column.percent else 1
    small = "" if cell.published is None else f" <sub>{number(cell.published, 1, 1 if column.percent else 2)}</sub>"
    score = number(cell.score, scale)
    return Markup(f"{f'**{score}**' if cell.best else score}{_letters(cell)}{small}")


def _letters(cell: Cell) -> str:
    """Footnote letters behind a score."""
    return "".join(f"<sup>{LETTERS[flag]}</sup>" for flag in cell.flags)
