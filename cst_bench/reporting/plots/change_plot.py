"""The per-prompt plot: prompts on which a model complies under both configurations, only one of them, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cst_bench.plotting import short, width
from cst_bench.reporting.leaderboard.board import ModelRow, Section
from cst_bench.reporting.plots.model_style import (
    PlotFigure,
    configuration,
    described,
    line_up,
    name_rows,
    two_configurations,
)

_KINDS = ("both", "first", "second", "neither", "unscored")
_FILLS: dict[str, dict[str, Any]] = {
    "both": {"facecolor": "#0072B2"},
    "first": {"facecolor": "#E69F00", "hatch": "///"},
    "second": {"facecolor": "#9AD3F2", "hatch": "\\\\\\"},
    "neither": {"facecolor": "0.88"},
    "unscored": {"facecolor": "white", "hatch": "...."},
}
"""In drawing order; distinguishable without colour by brightness and hatching."""
_CELLS = 80
"""Maximum number of prompts for one cell each."""


def prompt_strip(section: Section, task: str, title: str) -> PlotFigure | None:
    """Plot the models that were asked the same prompts under both configurations of a task; None if there are none."""
    columns = two_configurations(section, task)
    if columns is None:
        return None
    names = (configuration(columns[0]), configuration(columns[1]))
    counted = [
        (row, _counts(row, task, names)) for row in section.rows if all(column.key in row.cells for column in columns)
    ]
    rows = [row for row, counts in counted if sum(counts.values())]
    counts = [by_kind for _, by_kind in counted if sum(by_kind.values())]
    if not rows:
        return None
    labels = dict(
        zip(_KINDS, ("both", *(f"only {short(name, 60)}" for name in names), "neither", "unscored"), strict=True)
    )
    figure = Figure(figsize=(7.5, 1.35 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, by_kind in enumerate(counts):
        _strip(axes, at, by_kind)
    name_rows(axes, rows, section.rows)
    axes.set_xlim(0, max(sum(by_kind.values()) for by_kind in counts))
    line_up(axes, rows)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("prompts, sorted for each model")
    figure.suptitle(short(title, 500, 10), fontsize=10)
    used = [kind for kind in _KINDS if any(by_kind[kind] for by_kind in counts)]
    figure.legend(
        handles=[Patch(**_FILLS[kind], edgecolor="0.25", linewidth=0.6, label=labels[kind]) for kind in used],
        loc="outside lower center",
        ncols=len(used),
        frameon=False,
        title="does what is asked under",
        fontsize=8,
        title_fontsize=8,
    )
    return PlotFigure(figure, title, _alt(rows, counts, labels))


def _counts(row: ModelRow, task: str, names: tuple[str, str]) -> dict[str, float]:
    """Count the prompts of each kind, among those asked under both configurations; the mean over a method's seeds."""
    by_kind = dict.fromkeys(_KINDS, 0.0)
    for run in row.members:
        first, second = (run.complied(task, name) for name in names)
        for prompt in first.keys() & second.keys():
            by_kind[_kind(first[prompt], second[prompt])] += 1
    return {kind: total / len(row.members) for kind, total in by_kind.items()}


def _kind(first: float | None, second: float | None) -> str:
    """Return the kind of a prompt; of several responses, most have to comply."""
    if first is None or second is None:
        return "unscored"
    if first > 0.5 and second > 0.5:
        return "both"
    return "first" if first > 0.5 else "second" if second > 0.5 else "neither"


def _strip(axes: Any, at: int, counts: dict[str, float]) -> None:
    """Draw the prompts of one model, one bar for each kind, with its number where there is room."""
    start, total = 0.0, sum(counts.values())
    for kind in _KINDS:
        n = counts[kind]
        if n == 0:
            continue
        axes.barh(at, n, left=start, height=0.72, edgecolor="0.25", linewidth=0.6, **_FILLS[kind])
        if total <= _CELLS and n > 1 and n.is_integer():
            edges = np.arange(start + 1, start + n, dtype=float)
            across = np.stack([edges, edges, np.full(len(edges), np.nan)], 1).ravel()
            axes.plot(across, [at - 0.34, at + 0.34, np.nan] * len(edges), color="white", linewidth=0.5)
        if n / total > (width(f"{n:.0f}") + 8) / 290:
            fill = "white" if "hatch" in _FILLS[kind] else _FILLS[kind]["facecolor"]
            axes.text(
                start + n / 2, at, f"{n:.0f}", ha="center", va="center_baseline", fontsize=8,
                color="white" if kind == "both" else "black", bbox={"facecolor": fill, "edgecolor": "none", "pad": 1.2},
            )  # fmt: skip
        start += n


def _alt(rows: Sequence[ModelRow], counts: Sequence[dict[str, float]], labels: dict[str, str]) -> str:
    parts = ["Prompts by the configurations under which a model does what is asked."]
    for row, by_kind in zip(rows, counts, strict=True):
        numbers = ", ".join(f"{labels[kind]} {by_kind[kind]:.4g}" for kind in _KINDS if by_kind[kind])
        mean = f", mean of {row.runs} seeds" if row.runs > 1 else ""
        parts.append(f"{described(row)}: {numbers} of {sum(by_kind.values()):.0f}{mean}.")
    return " ".join(parts)
