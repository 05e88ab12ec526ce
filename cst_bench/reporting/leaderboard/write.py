"""Write the report of several runs in every requested format, from one content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import write_text
from cst_bench.reporting.formats import FORMATS
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.plots.draw import Plot, draw_plots
from cst_bench.reporting.stored_run import StoredRun, read_runs


def report(
    runs: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    formats: Sequence[str] = ("md",),
    *,
    title: str | None = None,
) -> Leaderboard:
    """Return the leaderboard of runs, or of the runs in folders; with `out` write it there, too.

    Args:
        runs: Run folders, or folders that have some.
        out: Folder for the report and its plots; nothing is written if None.
        formats: Of `md`, `html`, `latex`, `csv` and `json`.
        title: Title of the report.

    Raises:
        UserError: as `write_reports`.
    """
    paths = [Path(path) for path in ([runs] if isinstance(runs, (str, Path)) else runs)]
    if out is not None:
        return write_reports(paths, Path(out), formats, title=title)
    stored, left_out = read_runs(paths)
    return make_leaderboard(stored, left_out, title)


def write_reports(
    runs: Sequence[Path],
    out: Path,
    formats: Sequence[str] = ("md",),
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
) -> Leaderboard:
    """Write a report of runs, or of the runs in folders, into a folder, and its plots into `plots/` there.

    The same runs give the same bytes: a report holds no time and no path.

    Raises:
        UserError: a path has no run, a run is not finished, or there is no such format.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"unknown format {name!r}: {did_you_mean(name, FORMATS)}")
    stored, left_out = read_runs(runs)
    return write_board(stored, out, formats, title=title, notes=[*notes, *left_out])


def write_board(
    runs: Sequence[StoredRun],
    out: Path,
    formats: Sequence[str],
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
) -> Leaderboard:
    """Write a report of runs that were read (`read_runs`), as `write_reports` does."""
    board = make_leaderboard(runs, notes, title)
    plots = []
    if set(formats) & {"md", "html"}:
        plots = draw_plots(board, out / "plots")
    for name in formats:
        write_text(out / FORMATS[name], _text(name, board, plots))
    return board


def _text(name: str, board: Leaderboard, plots: Sequence[Plot]) -> str:
    if name == "md":
        from cst_bench.reporting.leaderboard.markdown import markdown_report

        return markdown_report(board, plots)
    if name == "html":
        from cst_bench.reporting.leaderboard.html import html_report

        return html_report(board, plots)
    if name == "latex":
        from cst_bench.reporting.leaderboard.latex import latex_report

        return latex_report(board)
    from cst_bench.reporting.leaderboard.tabular import csv_report, json_report

    return csv_report(board) if name == "csv" else json_report(board)
