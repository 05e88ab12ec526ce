"""The table that a run ends with on the terminal, 80 columns wide at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cst_bench.reporting.board_markdown import column_groups
from cst_bench.reporting.compare import Comparison
from cst_bench.reporting.leaderboard import Cell, Column, Leaderboard
from cst_bench.reporting.model import LETTERS, Figure, make_report
from cst_bench.reporting.numbers import ends, number, p_value, signed, signed_ends
from cst_bench.reporting.paired import LEVEL

_WIDTH, _MODEL, _CELL = 80, 16, 9


def summary_table(scores: Mapping[str, Any]) -> RenderableType:
    """Compliance and abilities of a run, a column for each score, the interval below it."""
    report = make_report(scores)
    parts: list[RenderableType] = []
    if report.compliance:
        parts += ["[bold]Does what its system prompt asks[/bold] (share of responses, 95 % interval)"]
        parts += [_table(report.compliance, 1)]
    joint = {detail.task: detail.figure for detail in report.details if detail.figure.name == "joint"}
    if joint:
        said = ", ".join(f"{task} {_number(figure.score, 1)}" for task, figure in joint.items())
        parts.append(f"Under every configuration of the task (joint): {escape(said)}")
    if report.capabilities:
        parts += ["[bold]Abilities[/bold] (lm-eval, %, 95 % interval)", _table(report.capabilities, 100)]
    parts.extend(f"{escape(name)}: not run, {escape(reason)}" for name, reason in report.unavailable.items())
    parts.extend(f"[dim]{escape(remark)}[/dim]" for remark in report.remarks)
    parts.extend(f"[dim]{escape(mark)}: {escape(text)}[/dim]" for mark, text in report.marks.items())
    return Group(*parts)


def _table(figures: Sequence[Figure], scale: int) -> Table:
    table = Table()
    for figure in figures:
        table.add_column(
            escape(figure.name), justify="right", no_wrap=True, style="bold" if figure.name == "Avg." else ""
        )
    table.add_row(*(_number(figure.score, scale) for figure in figures))
    table.add_row(*(_ends(figure, scale) for figure in figures), style="dim")
    table.add_row(*(f"n {figure.n}" for figure in figures), style="dim")
    if any(figure.unscored for figure in figures):
        table.add_row(*(f"{figure.unscored} unsc." for figure in figures), style="dim")
    return table


def _number(value: float | None, scale: int) -> str:
    return "–" if value is None else f"{scale * value:.{2 if scale == 1 else 1}f}"


def _ends(figure: Figure, scale: int) -> str:
    if figure.interval is None:
        return "–"
    low, high = figure.interval
    return f"{_number(low, scale)}–{_number(high, scale)}"


def reproduced_table(form: Any) -> Table:
    """One of the paper's tables (`cst_bench.reproduce.tables.ReproducedTable`): score, and what was published."""
    scale = 100 if form.percent else 1
    table = Table(title=escape(form.title), title_justify="left", title_style="bold")
    table.add_column("Model")
    for column in form.columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    for row in form.rows:
        cells = []
        for cell in row.cells:
            published = "" if cell.published is None else f"\n[dim]({cell.published:.{2 if scale == 1 else 1}f})[/dim]"
            ends = (
                ""
                if cell.interval is None
                else "\n[dim]" + "–".join(_number(end, scale) for end in cell.interval) + "[/dim]"
            )
            cells.append(f"{_number(cell.score, scale)}{ends}{published}")
        table.add_row(escape(row.arm), *cells)
    return table


def leaderboard_table(board: Leaderboard) -> RenderableType:
    """What a report of several runs ends with: models and scores, each section in tables of 80 columns at most."""
    parts: list[RenderableType] = []
    for section in board.sections:
        if section.why:
            parts.append(escape(f"Not ranked with the models above: {'; '.join(section.why)}"))
        for group in column_groups(section):
            for some in _in_width([column.title for column in group.columns]):
                columns = [group.columns[at] for at in some]
                table = Table(title=escape(f"{section.title}, {group.title}"), title_justify="left", title_style="bold")
                table.add_column("Model", overflow="fold", max_width=_MODEL)
                for column in columns:
                    table.add_column(escape(column.title), justify="right", no_wrap=True)
                for row in section.rows:
                    table.add_row(escape(row.title), *(_score(row.cells.get(column.key), column) for column in columns))
                parts.append(table)
    parts.extend(f"[dim]({LETTERS[mark]}) {mark}: {escape(text)}[/dim]" for mark, text in board.marks.items())
    parts.extend(f"[dim]{escape(remark)}[/dim]" for remark in board.remarks)
    return Group(*parts)


def _in_width(titles: Sequence[str]) -> list[range]:
    """Columns by place, in tables that fit into 80 columns."""
    parts, start, used = [], 0, _MODEL + 4
    for at, title in enumerate(titles):
        wide = max(len(title), _CELL) + 3
        if used + wide > _WIDTH and at > start:
            parts.append(range(start, at))
            start, used = at, _MODEL + 4
        used += wide
    return [*parts, range(start, len(titles))]


def _score(cell: Cell | None, column: Column) -> str:
    """A score over its interval, bold where it is really ahead."""
    if cell is None:
        return "–"
    scale = 100 if column.percent else 1
    score = number(cell.score, scale)
    marks = "".join(f" [dim]({LETTERS[mark]})[/dim]" for mark in cell.marks)
    return f"{f'[bold]{score}[/bold]' if cell.best else score}{marks}\n[dim]{ends(cell.interval, scale)}[/dim]"


def comparison_table(found: Comparison) -> RenderableType:
    """What a comparison of two runs ends with, 80 columns wide at most."""
    parts: list[RenderableType] = [f"[bold]{escape(found.label)}[/bold] less [bold]{escape(found.reference)}[/bold]"]
    parts.extend(f"[yellow]not alike: {escape(reason)}[/yellow]" for reason in found.different)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Score", overflow="fold")
    for title in ("before", "now", "diff.", "95 %", "p", "n", "+/−"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found.scores:
        scale = 100 if one.column.percent else 1
        difference = one.difference
        flips = "" if one.column.kind.endswith("average") else f"{len(difference.gained)}/{len(difference.lost)}"
        shown = one.p_holm is not None and one.p_holm < LEVEL
        table.add_row(
            escape(one.column.title + "".join(f" ({LETTERS[mark]})" for mark in one.marks)),
            number(one.reference, scale),
            number(one.score, scale),
            f"[bold]{signed(difference.difference, scale)}[/bold]" if shown else signed(difference.difference, scale),
            signed_ends(difference.interval, scale).replace(" to ", " … "),
            p_value(difference.p),
            str(difference.n),
            flips if one.column.kind != "ability" else "",
        )
    parts.append(table)
    parts.extend(f"[yellow]({LETTERS[mark]}) {mark}: {escape(text)}[/yellow]" for mark, text in found.marks.items())
    parts.append("[dim]bold: p below 0.05 after Holm's correction; +/−: prompts gained and lost; abilities in %[/dim]")
    if found.missing:
        parts.append(f"[dim]not compared: {escape(', '.join(found.missing))}[/dim]")
    return Group(*parts)
