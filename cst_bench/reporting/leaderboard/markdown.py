"""The Markdown report of several runs, from `reports/templates/leaderboard.md.j2`. Every value is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from cst_bench.escape import html_text
from cst_bench.numbers import DASH, ends, number, signed, signed_ends
from cst_bench.reporting.flags import LETTERS
from cst_bench.reporting.leaderboard.board import Leaderboard, ModelRow, Section
from cst_bench.reporting.plots.draw import Plot
from cst_bench.reporting.score_cells import Cell, Column, SeedRow, TableRow, counts_in_words
from cst_bench.reporting.side_effects import Measure, SideEffectRow
from cst_bench.statistics.labelled_pairs import PPI
from cst_bench.statistics.paired import Difference
from cst_bench.templates import markdown_environment, report_templates

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ColumnGroup:
    """Columns of one table: all of compliance, or all capabilities."""

    title: str
    columns: Sequence[Column]


def markdown_report(board: Leaderboard, plots: Sequence[Plot]) -> str:
    """Return the report; plots are expected in `plots/NAME.svg` beside it."""
    text = markdown_templates().get_template("leaderboard.md.j2").render(board=board, plots=plots)
    return re.sub(r"\n{3,}", "\n\n", text)


def markdown_templates() -> Environment:
    """Return the environment of the Markdown report templates, with filters for cells and flags."""
    environment = markdown_environment(report_templates())
    environment.filters.update(
        score=lambda row, column: _score(row, column),
        score_with_flags=lambda cell: Markup(DASH if cell is None else _number_with_flags(cell, 1)),
        score_cell=score_cell,
        paper_cell=_paper_cell,
        side_effect=side_effect_cell,
        letter=footnote_letter,
        letters=_letters,
        counts=_counts,
        column_groups=column_groups,
        corrected_cells=corrected_cells,
        seed_rows=seed_rows,
        uncorrected_scores=uncorrected_scores,
        html_text=html_text,
        file_name=Markup,
        short_hash=short_hash,
    )
    return environment


def column_groups(section: Section) -> list[ColumnGroup]:
    """Return the section's columns as tables: compliance, then capabilities."""
    groups = [
        ColumnGroup("compliance", [column for column in section.columns if not column.percent]),
        ColumnGroup("capabilities", [column for column in section.columns if column.percent]),
    ]
    return [group for group in groups if group.columns]


def corrected_cells(section: Section) -> Iterator[tuple[str, Column, Cell]]:
    """Yield the scores that were also corrected for judge error; those of a method are its seeds'."""
    for row in section.rows:
        for label, cells in [(seed.label, seed.cells) for seed in row.seeds] or [(row.label, row.cells)]:
            for column in section.columns:
                cell = cells.get(column.key)
                if cell is not None and cell.corrected is not None:
                    yield label, column, cell


def seed_rows(section: Section) -> list[tuple[ModelRow, SeedRow]]:
    """Return the seeds of all methods that are means over several."""
    return [(row, seed) for row in section.rows for seed in row.seeds]


def uncorrected_scores(section: Section) -> list[tuple[str, str]]:
    """Return why scores were not corrected for judge error, each with the scores: (reason, `MODEL (S1, S0), …`)."""
    titles: dict[str, dict[str, list[str]]] = {}
    for row in section.rows:
        for column in section.columns:
            cell = row.cells.get(column.key)
            if cell is not None and cell.uncorrected is not None:
                titles.setdefault(cell.uncorrected, {}).setdefault(row.label, []).append(column.title)
    if len(section.rows) == 1:
        return [(reason, ", ".join(*by_model.values())) for reason, by_model in titles.items()]
    return [
        (reason, ", ".join(f"{label} ({', '.join(names)})" for label, names in by_model.items()))
        for reason, by_model in titles.items()
    ]


def short_hash(text: str) -> str:
    """Return the first 12 digits of a SHA-256; other text as it is."""
    return f"{text[:12]}…" if _SHA256.fullmatch(text) else text


def footnote_letter(flag: str) -> Markup:
    """Return the footnote letter of a flag."""
    return Markup(f"<sup>{LETTERS[flag]}</sup>")


def _score(row: TableRow | SeedRow, column: Column) -> Markup:
    """Return the score with its flags."""
    cell = row.cells.get(column.key)
    return Markup(DASH if cell is None else _number_with_flags(cell, column.scale))


def score_cell(row: TableRow, column: Column) -> Markup:
    """Return score and flags, and below each other interval or range, n, and the difference to the base."""
    cell = row.cells.get(column.key)
    if cell is None:
        return Markup(DASH)
    lines = [
        _spread(cell, column),
        ", ".join(counts_in_words(cell)),
    ]
    if cell.difference is not None and cell.difference.difference is not None:
        by_labels = ", by people's labels" if cell.difference.test == PPI else ""
        lines.append(f"{signed(cell.difference.difference, column.scale)} to base{by_labels}")
    return Markup(_number_with_flags(cell, column.scale) + "".join(f"<br><sub>{line}</sub>" for line in lines))


def side_effect_cell(row: SideEffectRow, measure: Measure) -> Markup:
    """Return a mean, and below it interval and median, and the difference to the base."""
    cell = row.cells.get(measure.name)
    if cell is None:
        return Markup(DASH)
    digits = measure.digits
    lines = [", ".join(cell.spread(measure))]
    if cell.difference is not None and cell.difference.difference is not None:
        interval = cell.difference.interval
        between = "" if interval is None else f" ({signed_ends(interval, 1, digits)})"
        lines.append(f"{signed(cell.difference.difference, 1, digits)}{between} to base")
    return Markup(number(cell.mean, 1, digits) + "".join(f"<br><sub>{line}</sub>" for line in lines if line))


def _paper_cell(row: TableRow, column: Column, interval: bool = False) -> Markup:
    """Return the score, small the published one; with `interval` also interval or range, and difference to the base."""
    cell = row.cells.get(column.key)
    if cell is None:
        return Markup(DASH)
    text = _number_with_flags(cell, column.scale)
    if cell.published is not None:
        text += f" <sub>{number(cell.published, 1, 1 if column.percent else 2)}</sub>"
    if interval and cell.spread is not None:
        text += f"<br><sub>{_spread(cell, column)}</sub>"
    if interval and cell.difference is not None and cell.difference.difference is not None:
        text += f"<br><sub>{_change(cell.difference, column)}</sub>"
    return Markup(text)


def _spread(cell: Cell, column: Column) -> str:
    """Return the interval, or the range over seeds and what it is."""
    spread = cell.spread
    if spread is None:
        return DASH
    return ", ".join(filter(None, (ends(spread.ends, column.scale), spread.name)))


def _change(difference: Difference, column: Column) -> str:
    """Return the difference to the base, with its interval if there is one."""
    scale = column.scale
    between = "" if difference.interval is None else f" ({signed_ends(difference.interval, scale)})"
    return f"{signed(difference.difference, scale)}{between} to base"


def _number_with_flags(cell: Cell, scale: int) -> str:
    score = number(cell.score, scale)
    return f"{f'**{score}**' if cell.best else score}{_letters(cell.flags)}"


def _letters(flags: Sequence[str]) -> Markup:
    """Return the footnote letters behind a score."""
    return Markup("").join(map(footnote_letter, flags))


def _counts(counts: Mapping[str, int]) -> str:
    """Return `harmless 120, neither 80`, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
