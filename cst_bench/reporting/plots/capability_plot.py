"""Capabilities kept or lost: differences of trained models to their bases, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cst_bench.plotting import short
from cst_bench.reporting.leaderboard.board import ModelRow, Section
from cst_bench.reporting.plots.model_style import ModelStyle, PlotFigure, base_of, described, line_up, name_rows, styles
from cst_bench.reporting.score_cells import Column
from cst_bench.statistics.paired import Difference

_ABREAST = 5
"""Number of capabilities in a row of panels."""


def capabilities_kept(section: Section, title: str) -> PlotFigure | None:
    """Plot the paired differences of trained models to their bases; None if there is no difference."""
    columns = [
        column
        for column in section.columns
        if column.kind in ("capability", "capability_average") and any(_difference(row, column) for row in section.rows)
    ]
    shown = [
        (row, style)
        for row, style in zip(section.rows, styles(section.rows), strict=True)
        if any(_difference(row, column) for column in columns)
    ]
    if not shown:
        return None
    trained = [row for row, _ in shown]
    headings = [base_of(row, section.rows) for row in trained]
    rows = [row for row in section.rows if any(row is other for other in (*trained, *headings))]
    across, down = min(len(columns), _ABREAST), -(-len(columns) // _ABREAST)
    figure = Figure(
        figsize=(max(5.6, 2.6 + 1.15 * across), 0.9 + down * (0.4 + 0.22 * len(rows))), layout="constrained"
    )
    grid = figure.subplots(down, across, sharex=True, squeeze=False)
    places = {id(row): at for at, row in enumerate(rows)}
    for axes, column in zip(grid.flat, columns, strict=False):
        _panel(axes, column, [(places[id(row)], row, style) for row, style in shown], section)
    for axes in grid.flat[len(columns) :]:
        axes.set_visible(False)
    for at, axes in enumerate(grid.flat[: len(columns)]):
        if at % across == 0:
            name_rows(axes, rows, section.rows)
        else:
            axes.set_yticks([])
        line_up(axes, rows)
    figure.suptitle(short(title, 72 * figure.get_figwidth() - 20, 10), fontsize=10)
    figure.legend(handles=_key(), loc="outside lower center", ncols=4 if across > 2 else 2, frameon=False, fontsize=8)
    return PlotFigure(figure, title, _alt(columns, trained, section))


def _difference(row: ModelRow, column: Column) -> Difference | None:
    cell = row.cells.get(column.key)
    known = None if cell is None else cell.difference
    return known if known is not None and known.difference is not None else None


def _kept(row: ModelRow, column: Column, section: Section) -> str | None:
    """Return the verdict of the test on a capability; None where there is none, as for the average."""
    key = (row.label, row.base, column.title)
    verdicts = (
        verdict.kept for verdict in section.capabilities if (verdict.label, verdict.base, verdict.column) == key
    )
    return next(verdicts, None) if column.kind == "capability" else None


def _face(style: ModelStyle, kept: str | None) -> str:
    if kept in (None, "not tested"):
        return "0.8"
    return style.colour if kept in ("lost", "gained") else "white"


def _panel(axes: Any, column: Column, shown: Sequence[tuple[int, ModelRow, ModelStyle]], section: Section) -> None:
    axes.axvline(0, color="0.45", linewidth=0.9, zorder=1)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(short(column.title, 78), fontsize=9)
    for at, row, style in shown:
        difference = _difference(row, column)
        if difference is None or difference.difference is None:
            continue
        if difference.interval is not None:
            axes.plot([100 * end for end in difference.interval], [at, at], color=style.colour, linewidth=1.3, zorder=2)
        marker = {**style.style, "markerfacecolor": _face(style, _kept(row, column, section))}
        axes.plot([100 * difference.difference], [at], **marker, linestyle="", clip_on=False, zorder=3)


def _key() -> list[Line2D]:
    grey: dict[str, Any] = {"color": "0.3", "marker": "o", "markersize": 6}
    return [
        Line2D([], [], **grey, linestyle="", label="lost or gained (Holm)"),
        Line2D([], [], **grey, linestyle="", markerfacecolor="white", label="no difference shown"),
        Line2D([], [], **grey, linestyle="", markerfacecolor="0.8", label="not tested"),
        Line2D([], [], color="0.3", linewidth=1.3, label="95 % interval, paired"),
    ]


def _alt(columns: Sequence[Column], rows: Sequence[ModelRow], section: Section) -> str:
    parts = ["Differences to the base in percentage points, 95 % intervals in brackets."]
    for row in rows:
        known = ((column, _difference(row, column)) for column in columns)
        words = [
            _words(column, difference, _kept(row, column, section))
            for column, difference in known
            if difference is not None
        ]
        base = base_of(row, section.rows)
        parts.append(f"{described(row)}{'' if base is None else f' minus {described(base)}'}: {', '.join(words)}.")
    return " ".join(parts)


def _words(column: Column, difference: Difference, kept: str | None) -> str:
    points = "unknown" if difference.difference is None else f"{100 * difference.difference:+.1f}"
    between = (
        ""
        if difference.interval is None
        else " ({:+.1f} to {:+.1f})".format(*(100 * end for end in difference.interval))
    )
    verdict = f", {kept}" if kept in ("lost", "gained") else ""
    return f"{short(column.title, 60)} {points}{between}{verdict}"
