"""Styles of models in plots: colour and line for the group, marker for the method; and lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from cst_bench.plotting import COLOURS, short, width
from cst_bench.reporting.leaderboard.board import ModelRow, Section
from cst_bench.reporting.score_cells import Cell, Column

_LINES = ("-", "--", "-.", ":")
_BASE = "o"
_MARKERS = {"DPO": "^", "CST": "s", "adapter": "D"}
_OTHERS = "vPX<>p"


@dataclass(frozen=True)
class PlotFigure:
    """A matplotlib figure with its title and description."""

    figure: Figure
    title: str
    alt: str


@dataclass(frozen=True)
class ModelStyle:
    """Style of one model: colour and line for a base and the models trained on it, marker for the method."""

    colour: str
    line: str
    marker: str
    filled: bool
    """True for trained models."""

    @property
    def style(self) -> dict[str, Any]:
        """Return the arguments of matplotlib's lines."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markersize": 6}


def styles(rows: Sequence[ModelRow]) -> list[ModelStyle]:
    """Return the style of each row of a section: a model has the same one in all plots."""
    families = list(dict.fromkeys(row.family for row in rows))
    others = sorted({row.method for row in rows if row.method is not None} - _MARKERS.keys())
    markers = _MARKERS | {method: _OTHERS[at % len(_OTHERS)] for at, method in enumerate(others)}
    return [
        ModelStyle(
            COLOURS[families.index(row.family) % len(COLOURS)],
            _LINES[families.index(row.family) % len(_LINES)],
            _BASE if row.method is None else markers[row.method],
            not row.is_base,
        )
        for row in rows
    ]


def base_of(row: ModelRow, rows: Sequence[ModelRow]) -> ModelRow | None:
    """Return the row of the model that this one was trained on, if it is there."""
    base = next((other for other in rows if other.is_base and other.family == row.family), None)
    return None if base is row else base


def name(row: ModelRow, rows: Sequence[ModelRow], points: float, size: float = 9) -> str:
    """Return the title of a row in a list, indented below its base."""
    step = "   " if base_of(row, rows) is not None else ""
    return step + short(row.title, points - width(step, size), size)


def described(row: ModelRow) -> str:
    """Return the name of a row in a description, half a line at most."""
    return short(row.label, 300)


def name_rows(axes: Any, rows: Sequence[ModelRow], among: Sequence[ModelRow], points: float = 170) -> None:
    """Write the names of models down the left side of a plot, the first at the top."""
    names = [name(row, among, points) for row in rows]
    axes.set_yticks(range(len(rows)), names, ha="left")
    axes.tick_params(axis="y", length=0, pad=6 + max(map(width, names)))


def line_up(axes: Any, rows: Sequence[ModelRow]) -> None:
    """Give each model a line of the plot, and separate the groups of different bases."""
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    for at in range(1, len(rows)):
        if rows[at].family != rows[at - 1].family:
            axes.axhline(at - 0.5, color="0.8", linewidth=0.6, zorder=0)


def two_configurations(section: Section, task: str) -> tuple[Column, Column] | None:
    """Return S1 and S0 of a task that has both, else its first two configurations; None if it has fewer."""
    columns = [column for column in section.columns if column.kind == "compliance" and column.task == task]
    by_name = {configuration(column): column for column in columns}
    if "S1" in by_name and "S0" in by_name:
        return by_name["S1"], by_name["S0"]
    return (columns[0], columns[1]) if len(columns) > 1 else None


def configuration(column: Column) -> str:
    """Return the configuration of a column."""
    return column.key.removeprefix(f"{column.task}/")


def interval_words(cell: Cell) -> str:
    """Format a score in words: 0.73 (0.58 to 0.84), 0.83 (range of 3 seeds: 0.70 to 0.90)."""
    spread = cell.spread
    if spread is None:
        return f"{cell.score:.2f}"
    name = f"{spread.name}: " if spread.name else ""
    return f"{cell.score:.2f} ({name}{spread.ends[0]:.2f} to {spread.ends[1]:.2f})"
