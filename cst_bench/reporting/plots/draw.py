"""The plots of a report of several runs: drawn once, embedded in Markdown and HTML, and kept as SVG and PNG."""

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
    """A plot as reports embed it. Title and alternative text are plain text on one line, not escaped."""

    name: str
    """Of its files, without suffix."""
    title: str
    alt: str
    """What it shows, in numbers."""
    svg: str
    """An SVG file's text."""


def draw_plots(board: Leaderboard, folder: Path | None = None) -> list[Plot]:
    """Every plot that a report has data for, the same bytes each time.

    Args:
        board: The report's content.
        folder: Where NAME.svg and NAME.png are written, if anywhere.
    """
    from cst_bench.plotting import png_bytes, printable, styled, svg_text

    made: list[Plot] = []
    with styled():
        for wanted, plot_figure in _plot_figures(board):
            name = free_name(wanted, {plot.name for plot in made})
            svg = svg_text(plot_figure.figure, plot_figure.title)
            if folder is not None:
                write_text(folder / f"{name}.svg", svg)
                write_bytes(folder / f"{name}.png", png_bytes(plot_figure.figure))
            made.append(Plot(name, printable(plot_figure.title), plot_figure.alt, svg))
    return made


def _plot_figures(board: Leaderboard) -> Iterator[tuple[str, PlotFigure]]:
    """Names that may come twice, and drawings."""
    from cst_bench.reporting.plots.capability_plot import capabilities_kept
    from cst_bench.reporting.plots.change_plot import flip_strip
    from cst_bench.reporting.plots.judge_plot import judges_agreement
    from cst_bench.reporting.plots.plane_plot import controllability_plane

    for section in board.sections:
        of = f" ({section.title})" if len(board.sections) > 1 else ""
        for task in dict.fromkeys(column.task for column in section.columns if column.kind == "compliance"):
            if task is not None:
                title = _title(section, task)
                plane = controllability_plane(section, task, f"Controllability: {title}{of}")
                if plane is not None:
                    yield f"plane-{_slug(task)}", plane
                strip = flip_strip(section, task, f"Per prompt: {title}{of}")
                if strip is not None:
                    yield f"flips-{_slug(task)}", strip
        capabilities = capabilities_kept(section, f"Capabilities: difference to the base in percentage points{of}")
        if capabilities is not None:
            yield "capabilities", capabilities
    judges = judges_agreement(board.sections, "Judges against labels")
    if judges is not None:
        yield "judges", judges


def _title(section: Section, task: str) -> str:
    """As the task calls itself."""
    known = (row.run.settings.compliance.get(task) for row in section.rows)
    return next((settings.title for settings in known if settings is not None), task)


def _slug(task: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", task.lower())[:40].strip("_") or "task"
