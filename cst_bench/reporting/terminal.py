"""The table that a run ends with on the terminal, 80 columns wide at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cst_bench.escape import plain
from cst_bench.reporting.comparison.comparison import Comparison
from cst_bench.reporting.leaderboard.board import Cell, Column, Leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups
from cst_bench.numbers import ends, number, p_value, signed, signed_ends
from cst_bench.reporting.run_report import LETTERS, Figure, make_report
from cst_bench.statistics.paired import LEVEL

_WIDTH, _MODEL = 80, 16


def summary_table(scores: Mapping[str, Any]) -> RenderableType:
    """Compliance and capabilities of a run, a column for each score, the interval below it."""
    report = make_report(scores)
    parts: list[RenderableType] = []
    if report.compliance:
        parts += ["[bold]Does what its system prompt asks[/bold] (share of responses, 95 % interval)"]
        parts += _tables(report.compliance, 1)
    joint = {detail.task: detail.figure for detail in report.details if detail.figure.name == "joint"}
    if joint:
        said = ", ".join(f"{task} {_number(figure.score, 1)}" for task, figure in joint.items())
        parts.append(f"Under every configuration of the task (joint): {plain(said)}")
    if report.capabilities:
        parts += ["[bold]Capabilities[/bold] (lm-eval, %, 95 % interval)", *_tables(report.capabilities, 100)]
    parts.extend(f"{plain(name)}: not run, {plain(reason)}" for name, reason in report.unavailable.items())
    parts.extend(f"[dim]{plain(note)}[/dim]" for note in report.notes)
    parts.extend(f"[dim]{plain(flag)}: {plain(text)}[/dim]" for flag, text in report.flags.items())
    return Group(*parts)


def _tables(figures: Sequence[Figure], scale: int) -> list[Table]:
    """As many as it takes to fit into 80 columns."""
    widths = [max(len(figure.name), len(_ends(figure, scale)), len(f"{figure.unscored} unsc.")) for figure in figures]
    return [_table([figures[at] for at in some], scale) for some in _in_width(widths, 1)]


def _table(figures: Sequence[Figure], scale: int) -> Table:
    table = Table()
    for figure in figures:
        table.add_column(
            plain(figure.name), justify="right", no_wrap=True, style="bold" if figure.name == "Avg." else ""
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


def reproduced_tables(tables: Sequence[Any], flags: Mapping[str, str]) -> RenderableType:
    """The paper's tables (`cst_bench.reproduce.paper_tables.ReproducedTable`) and what their footnotes mean."""
    return Group(*map(_reproduced, tables), *_footnotes(flags))


def _reproduced(form: Any) -> Table:
    """Scores, their intervals, and what was published."""
    scale = 100 if form.percent else 1
    table = Table(title=plain(form.title), title_justify="left", title_style="bold")
    table.add_column("Model")
    for column in form.columns:
        table.add_column(plain(column), justify="right", no_wrap=True)
    for row in form.rows:
        cells = []
        for cell in row.cells:
            published = "" if cell.published is None else f"\n[dim]({cell.published:.{2 if scale == 1 else 1}f})[/dim]"
            ends = (
                ""
                if cell.interval is None
                else "\n[dim]" + "–".join(_number(end, scale) for end in cell.interval) + "[/dim]"
            )
            cells.append(f"{_number(cell.score, scale)}{_letters(cell.flags)}{ends}{published}")
        table.add_row(plain(row.arm), *cells)
    return table


def leaderboard_table(board: Leaderboard) -> RenderableType:
    """What a report of several runs ends with: models and scores, each section in tables of 80 columns at most."""
    parts: list[RenderableType] = []
    for section in board.sections:
        if section.why:
            parts.append(plain(f"Not ranked with the models above: {'; '.join(section.why)}"))
        for group in column_groups(section):
            cells = [[_score(row.cells.get(column.key), column) for row in section.rows] for column in group.columns]
            widths = [
                max(map(_wide, (plain(column.title), *of))) for column, of in zip(group.columns, cells, strict=True)
            ]
            for some in _in_width(widths, _MODEL + 4):
                columns = [group.columns[at] for at in some]
                table = Table(title=plain(f"{section.title}, {group.title}"), title_justify="left", title_style="bold")
                table.add_column("Model", overflow="fold", max_width=_MODEL)
                for column in columns:
                    table.add_column(plain(column.title), justify="right", no_wrap=True)
                for down, row in enumerate(section.rows):
                    table.add_row(plain(row.title), *(cells[at][down] for at in some))
                parts.append(table)
    parts.extend(_footnotes(board.flags))
    parts.extend(f"[dim]{plain(note)}[/dim]" for note in board.notes)
    return Group(*parts)


def _letters(flags: Sequence[str]) -> str:
    """Behind a score, what its footnotes are."""
    return "".join(f" [dim]({LETTERS[flag]})[/dim]" for flag in flags)


def _footnotes(flags: Mapping[str, str], style: str = "dim") -> list[RenderableType]:
    return [f"[{style}]({LETTERS[flag]}) {flag}: {plain(text)}[/{style}]" for flag, text in flags.items()]


def _wide(markup: str) -> int:
    """Of its longest line."""
    return max(cell_len(line) for line in Text.from_markup(markup).plain.split("\n"))


def _in_width(widths: Sequence[int], first: int) -> list[range]:
    """Columns by place, in tables that fit into 80 columns; `first` is what stands before them in each."""
    parts, start, used = [], 0, first
    for at, width in enumerate(widths):
        if used + width + 3 > _WIDTH and at > start:
            parts.append(range(start, at))
            start, used = at, first
        used += width + 3
    return [*parts, range(start, len(widths))]


def _score(cell: Cell | None, column: Column) -> str:
    """A score over its interval, bold where it is really ahead."""
    if cell is None:
        return "–"
    scale = 100 if column.percent else 1
    score = number(cell.score, scale)
    shown = f"[bold]{score}[/bold]" if cell.best else score
    return f"{shown}{_letters(cell.flags)}\n[dim]{ends(cell.interval, scale)}[/dim]"


def comparison_table(found: Comparison) -> RenderableType:
    """What a comparison of two runs ends with, 80 columns wide at most."""
    parts: list[RenderableType] = [f"[bold]{plain(found.label)}[/bold] less [bold]{plain(found.reference)}[/bold]"]
    parts.extend(f"[yellow]not alike: {plain(reason)}[/yellow]" for reason in found.different)
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
            plain(one.column.title) + _letters(one.flags),
            number(one.reference, scale),
            number(one.score, scale),
            f"[bold]{signed(difference.difference, scale)}[/bold]" if shown else signed(difference.difference, scale),
            signed_ends(difference.interval, scale).replace(" to ", " … "),
            p_value(difference.p),
            str(difference.n),
            flips if one.column.kind != "capability" else "",
        )
    parts.append(table)
    parts.extend(_footnotes(found.flags, "yellow"))
    parts.append(
        "[dim]bold: p below 0.05 after Holm's correction; +/−: prompts gained and lost; capabilities in %[/dim]"
    )
    if found.missing:
        parts.append(f"[dim]not compared: {plain(', '.join(found.missing))}[/dim]")
    return Group(*parts)
