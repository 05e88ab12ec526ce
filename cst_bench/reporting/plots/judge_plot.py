"""Judges against labels: macro F1 with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cst_bench.plotting import INK, short, width
from cst_bench.reporting.leaderboard.board import JudgeRow, Section
from cst_bench.reporting.plots.model_style import PlotFigure

_ROOM = 190


def judges_agreement(sections: Sequence[Section], title: str) -> PlotFigure | None:
    """Plot all judges, each once per task; None if none was measured against labels."""
    rows = list(dict.fromkeys(row for section in sections for row in section.judges))
    if all(row.f1 is None for row in rows):
        return None
    wanted = {float(row.run.settings.min_judge_f1) for section in sections for row in section.rows}
    figure = Figure(figsize=(7.2, 1.15 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(rows):
        _draw(axes, at, row)
    for least in sorted(wanted):
        axes.axvline(least, color="0.45", linestyle="--", linewidth=1, zorder=1)
    names = [f"{short(f'{row.name}: {row.task}', _ROOM)}\n{short(_labels(row), _ROOM, 9)}" for row in rows]
    axes.set_yticks(range(len(rows)), names, ha="left")
    lines = (line for both in names for line in both.split("\n"))
    axes.tick_params(axis="y", length=0, pad=6 + max(map(width, lines)))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    ends = [end for row in rows for end in (row.f1, *(row.interval or ())) if end is not None]
    axes.set_xlim(max(-0.02, min([*ends, *wanted]) - 0.05), 1.01)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("macro F1 against labels")
    figure.suptitle(short(title, 480, 10), fontsize=10)
    figure.legend(handles=_key(sorted(wanted)), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return PlotFigure(figure, title, _alt(rows))


def _draw(axes: Any, at: int, row: JudgeRow) -> None:
    if row.interval is not None:
        axes.plot(row.interval, [at, at], color=INK, linewidth=1.3)
    if row.f1 is not None:
        axes.plot([row.f1], [at], marker="o", markersize=6, color=INK, markerfacecolor=_face(row))
    axes.annotate(
        _figures(row), (1, at), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
        va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip


def _face(row: JudgeRow) -> str:
    return INK if row.calibrated else "white"


def _figures(row: JudgeRow) -> str:
    if row.f1 is None:
        return "not measured"
    return f"{row.f1:.3f}" + ("" if row.interval is None else f" ({row.interval[0]:.3f} to {row.interval[1]:.3f})")


def _labels(row: JudgeRow) -> str:
    if row.f1 is None:
        return "no labels"
    return f"{row.n} labels: {row.labels}"


def _key(wanted: Sequence[float]) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6, "color": INK}
    handles = [
        Line2D([], [], **dot, label="calibrated"),
        Line2D([], [], **dot, markerfacecolor="white", label="not calibrated"),
        Line2D([], [], color=INK, linewidth=1.3, label="95 % interval"),
    ]
    if wanted:
        least = " or ".join(f"{value:g}" for value in wanted)
        handles.append(
            Line2D([], [], color="0.45", linestyle="--", linewidth=1, label=f"minimum for calibrated: {least}")
        )
    return handles


def _alt(rows: Sequence[JudgeRow]) -> str:
    parts = ["Macro F1 of judges against labels, 95 % intervals in brackets."]
    for row in rows:
        trust = "calibrated" if row.calibrated else "not calibrated"
        parts.append(f"{short(row.name, 200)} on {short(row.task, 200)}: {_figures(row)}, {_labels_of(row)}{trust}.")
    return " ".join(parts)


def _labels_of(row: JudgeRow) -> str:
    return "" if row.f1 is None else f"{row.n} labels ({short(row.labels, 200)}, {short(row.labelled_by, 200)}), "
