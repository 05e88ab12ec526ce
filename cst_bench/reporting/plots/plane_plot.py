"""The controllability plane: compliance under two opposite system prompts, with arrows from bases to trained models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cst_bench.plotting import printable, short, width
from cst_bench.reporting.leaderboard.board import ModelRow, Section
from cst_bench.reporting.plots.label_placement import Box, place
from cst_bench.reporting.plots.model_style import (
    ModelStyle,
    PlotFigure,
    base_of,
    configuration,
    described,
    interval_words,
    name,
    styles,
    two_configurations,
)
from cst_bench.reporting.score_cells import Cell, Column

_NAMED = 6
"""Maximum number of models with names beside the points; with more, numbers and a list are used."""
_ROOM = 150
"""Maximum width of a name beside its point, in points."""
_SIDE = 4.2
"""Side of the square plot, in inches."""
_LEFT, _RIGHT, _TOP, _BELOW = 0.65, 0.15, 0.3, 1.0
_LIST = 2.9
"""Width of a list of names, in inches."""
_LINE = 0.17
"""Height of a line of the list, in inches."""
_SMALL = 8


@dataclass(frozen=True)
class Point:
    """A model in the plane."""

    row: ModelRow
    style: ModelStyle
    across: Cell
    up: Cell
    at: tuple[float, float]


def controllability_plane(section: Section, task: str, title: str) -> PlotFigure | None:
    """Plot the compliance under one configuration against another; None if no model has both scores."""
    columns = two_configurations(section, task)
    points = [] if columns is None else _points(section, columns)
    if columns is None or not points:
        return None
    listed = not _named(points)
    high = _TOP + _SIDE + _BELOW
    lists = -(-len(points) // int((high - 0.2) / _LINE)) if listed else 0
    wide = _LEFT + _SIDE + _RIGHT
    figure = Figure(figsize=(wide + _LIST * lists, high))
    across, up = figure.get_size_inches()
    axes = figure.add_axes((_LEFT / across, _BELOW / up, _SIDE / across, _SIDE / up))
    _frame(axes, columns, points[0].row, task)
    axes.set_title(short(title, 72 * wide - 30, 10), fontsize=10, loc="left", x=-0.08)
    arrows = _arrows(points, section.rows)
    for point in points:
        _draw_point(axes, point)
    for base, model in arrows:
        _draw_arrow(axes, base, model)
    key: dict[str, Any] = {
        "loc": "lower center",
        "bbox_to_anchor": ((_LEFT + _SIDE / 2) / across, 0),
        "borderaxespad": 0.3,
    }
    figure.legend(handles=_key(points), ncols=3, frameon=False, fontsize=_SMALL, **key)
    if listed:
        _list(figure, points, section.rows, lists, wide / across)
    _label(axes, points, arrows, listed)
    return PlotFigure(figure, title, _alt(columns, points, section))


def _points(section: Section, columns: tuple[Column, Column]) -> list[Point]:
    points = []
    for row, style in zip(section.rows, styles(section.rows), strict=True):
        cells = [row.cells.get(column.key) for column in columns]
        if cells[0] is not None and cells[1] is not None:
            across, up = cells[0], cells[1]
            if across.score is not None and up.score is not None:
                points.append(Point(row, style, across, up, (across.score, up.score)))
    return points


def _named(points: Sequence[Point]) -> bool:
    """Return whether there is room for names: they are few and short, and no two points coincide."""
    short_names = all(short(point.row.title, _ROOM, _SMALL) == printable(point.row.title) for point in points)
    return len(points) <= _NAMED and short_names and len({point.at for point in points}) == len(points)


def _arrows(points: Sequence[Point], rows: Sequence[ModelRow]) -> list[tuple[Point, Point]]:
    """Return pairs of a base and a model trained on it."""
    by_row = {id(point.row): point for point in points}
    ends = ((by_row.get(id(base_of(point.row, rows))), point) for point in points)
    return [(base, point) for base, point in ends if base is not None]


def _frame(axes: Any, columns: tuple[Column, Column], row: ModelRow, task: str) -> None:
    """Draw axes from 0 to 1, the ideal corner, and the line of models that ignore the system prompt."""
    axes.set_xlim(-0.04, 1.06)
    axes.set_ylim(-0.04, 1.06)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    asked = row.run.configurations(task)
    for column, write in zip(columns, (axes.set_xlabel, axes.set_ylabel), strict=True):
        behaviour = short(asked.get(configuration(column), "it"), 90)
        write(f"{short(column.title, 60)}: share of responses that are {behaviour} when asked")
    axes.plot([0, 1], [1, 0], color="0.6", linestyle=(0, (1, 2.5)), linewidth=1.1, zorder=1)
    axes.plot([1], [1], marker="*", markersize=21, color="0.9", markeredgecolor="0.45", linestyle="", zorder=1.5)


def _draw_point(axes: Any, point: Point) -> None:
    (x, y), style = point.at, point.style
    if point.across.interval is not None:
        axes.plot(point.across.interval, [y, y], color=style.colour, linewidth=0.8, alpha=0.55, zorder=2)
    if point.up.interval is not None:
        axes.plot([x, x], point.up.interval, color=style.colour, linewidth=0.8, alpha=0.55, zorder=2)
    axes.plot([x], [y], **style.style, linestyle="", zorder=4)


def _draw_arrow(axes: Any, base: Point, model: Point) -> None:
    if np.hypot(model.at[0] - base.at[0], model.at[1] - base.at[1]) < 0.06:
        return
    style = {"arrowstyle": "-|>", "color": model.style.colour, "linestyle": model.style.line, "linewidth": 1.1}
    axes.annotate(
        "", model.at, base.at, arrowprops={**style, "shrinkA": 5, "shrinkB": 5, "mutation_scale": 9}, zorder=3
    )


def _key(points: Sequence[Point]) -> list[Line2D]:
    """Return the legend of markers and lines."""
    grey: dict[str, Any] = {"linestyle": "", "color": "0.3", "markersize": 6}
    handles = [
        Line2D([], [], linestyle="", marker="*", markersize=13, color="0.9", markeredgecolor="0.45", label="ideal"),
        Line2D([], [], color="0.6", linestyle=(0, (1, 2.5)), label="same, whatever it is asked"),
        Line2D([], [], color="0.5", linewidth=0.8, marker="|", label="95 % interval"),
    ]
    seen: dict[str, Line2D] = {}
    for point in points:
        kind = point.row.method or "base"
        seen.setdefault(kind, Line2D([], [], **grey, marker=point.style.marker, label=short(kind, 60, _SMALL)))
        if point.row.is_base:
            seen[kind].set_markerfacecolor("white")
    return handles + list(seen.values())


def _list(figure: Figure, points: Sequence[Point], among: Sequence[ModelRow], lists: int, left: float) -> None:
    """Draw the list of numbered names to the right of the plot."""
    digits = len(str(len(points)))
    room = 72 * _LIST - 62
    numbers = [str(at).rjust(digits, "\u2007") for at in range(1, len(points) + 1)]
    names = [f"{name(point.row, among, room, _SMALL)}{_doubt(point)}" for point in points]
    handles = [
        Line2D([], [], **point.style.style, linestyle="", label=f"{number}  {named}")
        for point, named, number in zip(points, names, numbers, strict=True)
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, 1), ncols=lists, frameon=False, fontsize=_SMALL
    )


def _label(axes: Any, points: Sequence[Point], arrows: Sequence[tuple[Point, Point]], listed: bool) -> None:
    """Draw numbers or names beside points; models at the same point share a label. All lengths are in points."""
    shared: dict[tuple[float, float], list[str]] = {}
    for number, point in enumerate(points, 1):
        label = str(number) if listed else short(point.row.title, _ROOM, _SMALL) + _doubt(point)
        shared.setdefault((round(point.at[0], 3), round(point.at[1], 3)), []).append(label)
    texts = [", ".join(names) for names in shared.values()]
    scale = 72 / axes.figure.dpi
    anchors = [tuple(scale * axes.transData.transform(where)) for where in shared]
    frame = axes.get_window_extent()
    bounds = Box(scale * frame.x0, scale * frame.y0, scale * frame.x1, scale * frame.y1)
    star = scale * axes.transData.transform((1, 1))
    marks = [Box(x - 4.5, y - 4.5, x + 4.5, y + 4.5) for x, y in anchors]
    marks.append(Box(star[0] - 8, star[1] - 8, star[0] + 8, star[1] + 8))
    lines = np.vstack([scale * axes.transData.transform(line) for line in _lines(points, arrows)])
    boxes = place(anchors, [_size(text) for text in texts], marks, lines, bounds, 6)
    for text, box, (x, y) in zip(texts, boxes, anchors, strict=True):
        near = box.nearest((x, y))
        led = np.hypot(near[0] - x, near[1] - y) > 11
        line: dict[str, Any] = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            text,
            (x, y),
            ((box.left + box.right) / 2, (box.bottom + box.top) / 2),
            xycoords="figure points",
            textcoords="figure points",
            ha="center",
            va="center",
            fontsize=_SMALL,
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
            arrowprops=line if led else None,
        )


def _lines(points: Sequence[Point], arrows: Sequence[tuple[Point, Point]]) -> Iterator[np.ndarray]:
    """Yield arrows and intervals as dense points, each of which has the same cost on a label."""
    for base, model in arrows:
        yield np.linspace(base.at, model.at, 60)
    for point in points:
        (x, y), across, up = point.at, point.across.interval, point.up.interval
        yield np.linspace((x if across is None else across[0], y), (x if across is None else across[1], y), 20)
        yield np.linspace((x, y if up is None else up[0]), (x, y if up is None else up[1]), 20)


def _doubt(point: Point) -> str:
    """Return the footnote letter of a model whose scores are not to be ranked."""
    return " (x)" if "unscored" in (*point.across.flags, *point.up.flags) else ""


def _size(text: str) -> tuple[float, float]:
    return width(text, _SMALL) + 3, 10.5


def _alt(columns: tuple[Column, Column], points: Sequence[Point], section: Section) -> str:
    across, up = (short(column.title, 60) for column in columns)
    shown = {id(point.row) for point in points}
    parts = [f"{across} to the right, {up} upwards; the ideal is 1 in both, 95 % intervals in brackets."]
    for point in points:
        base = base_of(point.row, section.rows)
        origin = f" (from {described(base)})" if base is not None else ""
        parts.append(
            f"{described(point.row)}{origin}: {across} {interval_words(point.across)}, {up} {interval_words(point.up)}"
            + (", too many unscored to be ranked." if _doubt(point) else ".")
        )
    missing = [described(row) for row in section.rows if id(row) not in shown]
    if missing:
        parts.append(f"Not shown, without a score: {', '.join(missing)}.")
    return " ".join(parts)
