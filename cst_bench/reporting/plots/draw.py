"""The plots of a report of several runs: drawn once, embedded in Markdown and HTML, and written as SVG and PNG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.files import free_name, write_bytes, write_text
from cst_bench.reporting.leaderboard.board import Leaderboard, Section

if TYPE_CHECKING:
    from cst_bench.reporting.plots.model_style import PlotFigure


@dataclass(frozen=True)
class Plot:
    """A plot that reports embed. Title and alternative text are plain text on one line, not escaped."""

    name: str
    """File name without suffix."""
    title: str
    alt: str
    """Description in numbers, for screen readers."""
    svg: str
    """Text of the SVG file."""

    def _repr_svg_(self) -> str:
        return self.svg


def draw_plots(board: Leaderboard, folder: Path | None = None) -> list[Plot]:
    """Draw every plot that a report has data for, with the same bytes each time.

    Args:
        board: Content of the report.
        folder: Folder for NAME.svg and NAME.png; nothing is written if None.
    """
    from cst_bench.plotting import png_bytes, printable, styled, svg_text

    plots: list[Plot] = []
    with styled():
        for wanted, plot_figure in _plot_figures(board):
            name = free_name(wanted, {plot.name for plot in plots})
            svg = svg_text(plot_figure.figure, plot_figure.title)
            if folder is not None:
                write_text(folder / f"{name}.svg", svg)
                write_bytes(folder / f"{name}.png", png_bytes(plot_figure.figure))
            plots.append(Plot(name, printable(plot_figure.title), plot_figure.alt, svg))
    return plots


def _plot_figures(board: Leaderboard) -> Iterator[tuple[str, PlotFigure]]:
    """Yield names, which may repeat, and figures."""
    from cst_bench.reporting.plots.capability_plot import capabilities_kept
    from cst_bench.reporting.plots.change_plot import prompt_strip
    from cst_bench.reporting.plots.judge_plot import judges_agreement
    from cst_bench.reporting.plots.plane_plot import controllability_plane

    for section in board.sections:
        suffix = f" ({section.title})" if len(board.sections) > 1 else ""
        for task in dict.fromkeys(column.task for column in section.columns if column.kind == "compliance"):
            if task is not None:
                title = _title(section, task)
                plane = controllability_plane(section, task, f"Controllability: {title}{suffix}")
                if plane is not None:
                    yield f"plane-{_slug(task)}", plane
                strip = prompt_strip(section, task, f"Per prompt: {title}{suffix}")
                if strip is not None:
                    yield f"prompts-{_slug(task)}", strip
        capabilities = capabilities_kept(section, f"Capabilities: difference to the base in percentage points{suffix}")
        if capabilities is not None:
            yield "capabilities", capabilities
    judges = judges_agreement(board.sections, "Judges against labels")
    if judges is not None:
        yield "judges", judges


def _title(section: Section, task: str) -> str:
    """Return the title of a task."""
    known = (row.run.settings.compliance.get(task) for row in section.rows)
    return next((settings.title for settings in known if settings is not None), task)


def _slug(task: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", task.lower())[:40].strip("_") or "task"
