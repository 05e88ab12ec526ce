"""Tables on the terminal, 80 columns wide at most: a run's summary, a leaderboard, a reproduction, a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cst_bench.escape import plain
from cst_bench.numbers import DASH, ends, number, p_value, signed, signed_ends
from cst_bench.record import USELESS
from cst_bench.reporting.comparison.comparison import ComparedScore, Comparison
from cst_bench.reporting.flags import LETTERS
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups
from cst_bench.reporting.run_report import make_run_report
from cst_bench.reporting.score_cells import Cell, Column, ScoreTable, TableRow
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.labelled_pairs import PPI
from cst_bench.statistics.paired import LEVEL

_WIDTH, _MODEL = 80, 16


def summary_table(run: StoredRun) -> RenderableType:
    """Return the scores of one run, a column for each, with interval and n below."""
    report = make_run_report(run)
    parts: list[RenderableType] = []
    if report.compliance:
        parts.append("[bold]Does what its system prompt asks[/bold] (share of responses, 95 % interval)")
        parts += _summary_tables(report.row, report.compliance)
    joint = {column.task: report.row.cells[column.key] for column in report.joint if column.key in report.row.cells}
    if joint:
        scores = ", ".join(f"{task} {number(cell.score, 1)}" for task, cell in joint.items())
        parts.append(f"Under every configuration of the task (joint): {plain(scores)}")
    if report.capabilities:
        parts.append("[bold]Capabilities[/bold] (lm-eval, %, 95 % interval)")
        parts += _summary_tables(report.row, report.capabilities)
    parts.extend(f"{plain(name)}: not scored, {plain(reason)}" for name, reason in report.unavailable.items())
    parts.extend(f"[dim]{plain(note)}[/dim]" for note in run.scores.notes)
    parts.extend(f"[dim]{plain(flag)}: {plain(meaning)}[/dim]" for flag, meaning in report.board.flags.items())
    parts.extend(
        f"[dim]not corrected for judge error: {plain(titles)}: {plain(reason)}[/dim]"
        for reason, titles in report.uncorrected
    )
    return Group(*parts)


def _summary_tables(row: TableRow, columns: Sequence[Column]) -> list[Table]:
    """Lay out a row in as many tables as it takes to fit into 80 columns."""
    columns = [column for column in columns if column.key in row.cells]
    lines = [_summary_lines(row.cells[column.key], column) for column in columns]
    widths = [max(map(cell_len, (column.title, *texts))) for column, texts in zip(columns, lines, strict=True)]
    return [_summary_table([columns[at] for at in part], [lines[at] for at in part]) for part in _in_width(widths, 1)]


def _summary_lines(cell: Cell, column: Column) -> list[str]:
    """Return score, interval, n, and unscored and useless responses."""
    return [
        number(cell.score, column.scale),
        ends(cell.interval, column.scale),
        f"n {cell.n}",
        f"of {cell.prompts} prompts" if cell.prompts is not None else "",
        f"{cell.unscored} unsc." if cell.unscored else "",
        f"in {ends(cell.bounds, column.scale)}" if cell.bounds is not None else "",
        *(f"{cell.useless[name]} {name}" if name in cell.useless else "" for name in USELESS),
    ]


def _summary_table(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(
            plain(column.title), justify="right", no_wrap=True, style="bold" if column.title == "Avg." else ""
        )
    for at, texts in enumerate(zip(*lines, strict=True)):
        if any(texts):
            table.add_row(*texts, style="dim" if at else "")
    return table


def leaderboard_table(board: Leaderboard) -> RenderableType:
    """Return models and scores, each section in tables of 80 columns at most."""
    parts: list[RenderableType] = []
    for section in board.sections:
        if section.why:
            parts.append(plain(f"Not ranked with the models above: {'; '.join(section.why)}"))
        for group in column_groups(section):
            parts += _score_tables(f"{section.title}, {group.title}", group.columns, section.rows)
    parts.extend(_footnotes(board.flags))
    parts.extend(f"[dim]{plain(note)}[/dim]" for note in board.notes)
    return Group(*parts)


def score_tables(tables: Sequence[ScoreTable], flags: Mapping[str, str]) -> RenderableType:
    """Return tables in the paper's form, and the meanings of their flags."""
    parts: list[RenderableType] = []
    for table in tables:
        parts += _score_tables(table.title, table.columns, table.rows)
    return Group(*parts, *_footnotes(flags))


def _score_tables(title: str, columns: Sequence[Column], rows: Sequence[TableRow]) -> list[Table]:
    cells = [[_score(row.cells.get(column.key), column) for row in rows] for column in columns]
    widths = [max(map(_width, (plain(column.title), *texts))) for column, texts in zip(columns, cells, strict=True)]
    tables = []
    for part in _in_width(widths, _MODEL + 4):
        table = Table(title=plain(title), title_justify="left", title_style="bold")
        table.add_column("Model", overflow="fold", max_width=_MODEL)
        for at in part:
            table.add_column(plain(columns[at].title), justify="right", no_wrap=True)
        for down, row in enumerate(rows):
            table.add_row(plain(row.title), *(cells[at][down] for at in part))
        tables.append(table)
    return tables


def _score(cell: Cell | None, column: Column) -> str:
    """Return a score over its interval and the published value; bold where it is ahead of all others."""
    if cell is None:
        return DASH
    score = number(cell.score, column.scale)
    lines = [f"[bold]{score}[/bold]{_letters(cell.flags)}" if cell.best else f"{score}{_letters(cell.flags)}"]
    spread = cell.spread
    lines.append(f"[dim]{DASH if spread is None else ends(spread.ends, column.scale)}[/dim]")
    if spread is not None and spread.name:
        lines.append(f"[dim]{spread.name.replace(' of ', ' of' + chr(10))}[/dim]")
    if cell.published is not None:
        lines.append(f"[dim]({number(cell.published, 1, 1 if column.percent else 2)})[/dim]")
    return "\n".join(lines)


def _letters(flags: Sequence[str]) -> str:
    """Return the footnote letters behind a score."""
    return "".join(f" [dim]({LETTERS[flag]})[/dim]" for flag in flags)


def _footnotes(flags: Mapping[str, str], style: str = "dim") -> list[RenderableType]:
    return [f"[{style}]({LETTERS[flag]}) {flag}: {plain(meaning)}[/{style}]" for flag, meaning in flags.items()]


def _width(markup: str) -> int:
    """Return the width of the longest line."""
    return max(cell_len(line) for line in Text.from_markup(markup).plain.split("\n"))


def _in_width(widths: Sequence[int], first: int) -> list[range]:
    """Split columns, by index, into tables that fit into 80 columns; `first` is the width before them in each."""
    parts, start, used = [], 0, first
    for at, width in enumerate(widths):
        if used + width + 3 > _WIDTH and at > start:
            parts.append(range(start, at))
            start, used = at, first
        used += width + 3
    return [*parts, range(start, len(widths))]


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the comparison of two runs as a table."""
    title = f"[bold]{plain(comparison.label)}[/bold] minus [bold]{plain(comparison.baseline)}[/bold]"
    parts: list[RenderableType] = [title]
    parts.extend(f"[yellow]not the same: {plain(reason)}[/yellow]" for reason in comparison.different)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Score", overflow="fold")
    for heading in ("before", "now", "diff.", "95 %", "p", "n", "+/−", "shows"):
        table.add_column(heading, justify="right", no_wrap=True)
    for score in comparison.scores:
        table.add_row(*_comparison_line(score))
    parts.append(table)
    parts.extend(_footnotes(comparison.flags, "yellow"))
    parts.append(
        "[dim]bold: p below 0.05 after Holm's correction; +/−: prompts gained and lost; shows: smallest true "
        "difference that this n shows in 4 of 5 comparisons; capabilities in %[/dim]"
    )
    parts.append(f"[dim]{plain(_judge_error(comparison))}[/dim]")
    parts.extend(f"[dim]{plain(note)}[/dim]" for note in comparison.notes)
    parts.extend(_shown_side_effects(comparison))
    parts.append(f"[dim]{comparison.receipt_line}[/dim]")
    if comparison.missing:
        parts.append(f"[dim]not compared: {plain(', '.join(comparison.missing))}[/dim]")
    return Group(*parts)


def _shown_side_effects(comparison: Comparison) -> Iterator[str]:
    """Yield the side effects that differ, p below 0.05 after Holm's correction over all of them, by configuration."""
    shown: dict[str, list[str]] = {}
    for effect in comparison.side_effects:
        if effect.p_holm is not None and effect.p_holm < LEVEL:
            digits = effect.measure.digits
            before, now = (number(value, 1, digits) for value in (effect.baseline, effect.mean))
            between = signed_ends(effect.difference.interval, 1, digits).replace(" to ", " … ")
            texts = shown.setdefault(plain(f"{effect.task}, {effect.configuration}"), [])
            texts.append(f"{effect.measure.title} {before} → {now} ({between})")
    yield from (f"[bold]Side effects[/bold], {where}: {'; '.join(texts)}" for where, texts in shown.items())


def _judge_error(comparison: Comparison) -> str:
    """Return how far differences include judge error: corrected by labels, bounded by a card, or not at all."""
    labelled = [score.column.title for score in comparison.scores if score.difference.test == PPI]
    by_labels = f"{', '.join(labelled)}: by people's labels of both runs; the others are "
    bounds = [
        f"{score.column.title} {signed_ends(score.judge_error, score.column.scale).replace(' to ', ' … ')}"
        for score in comparison.scores
        if score.judge_error is not None
    ]
    allowed = f"; judge error by its card's rates allows {', '.join(bounds)}" if bounds else ""
    return f"{by_labels if labelled else 'intervals are '}of the judge's verdicts{allowed}"


def _comparison_line(score: ComparedScore) -> list[str]:
    scale, difference = score.column.scale, score.difference
    change = signed(difference.difference, scale)
    significant = score.p_holm is not None and score.p_holm < LEVEL
    by_prompt = score.column.kind in ("compliance", "joint")
    return [
        plain(score.column.title) + _letters(score.flags),
        number(score.baseline, scale),
        number(score.score, scale),
        f"[bold]{change}[/bold]" if significant else change,
        signed_ends(difference.interval, scale).replace(" to ", " … "),
        p_value(difference.p),
        str(difference.n),
        f"{len(difference.gained)}/{len(difference.lost)}" if by_prompt else "",
        number(score.detectable, scale),
    ]
