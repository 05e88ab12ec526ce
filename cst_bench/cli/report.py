"""`cst-bench report`."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  cst-bench report runs/                                       all finished runs in a folder
  cst-bench report runs/base runs/dpo runs/cst --format md --format html --out my-report
  cst-bench report runs/cst --model-card my-cst/README.md      also write the scores into a model card
  cst-bench report runs/cst --generations                      also list the responses, without their text

RUN is a run folder, or a folder that holds some. Models are ranked together only if they were tested on the same
prompts and judged by the same judges."""


@click.command(epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["md", "html", "latex", "csv", "json"]),
    default=("md",),
    help="Format of the report; repeatable.",
)
@click.option("--title", metavar="TEXT", help="Title of the report.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/report"),
    metavar="DIR",
    help="Folder for the report and its plots.",
)
@click.option("--generations", is_flag=True, help="Also write a table of each model's responses into DIR/generations/.")
@click.option("--show-text", is_flag=True, help="Show prompts and responses in these tables (with --generations).")
@click.option(
    "--model-card",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="README.md",
    help="Model card to write the scores of a single run into (model-index metadata).",
)
def command(
    *,
    runs: tuple[Path, ...],
    formats: tuple[str, ...],
    title: str | None,
    out: Path,
    generations: bool,
    show_text: bool,
    model_card: Path | None,
) -> None:
    """Write the leaderboard, tables, comparisons and plots of the runs in RUN."""
    from cst_bench.cli.console import make_console, print_line
    from cst_bench.errors import UserError
    from cst_bench.reporting import read_runs
    from cst_bench.reporting.formats import FORMATS
    from cst_bench.reporting.leaderboard.write import write_board
    from cst_bench.reporting.terminal import leaderboard_table

    if show_text and not generations:
        raise UserError("--show-text needs --generations: the report itself holds no responses")
    stored, left_out = read_runs(runs)
    if model_card is not None:
        from cst_bench.reporting.model_card import update_model_card

        if len(stored) > 1:
            raise UserError(f"--model-card takes the scores of one run, but {len(stored)} were given: name one")
        update_model_card(model_card, stored[0])
    board = write_board(stored, out, formats, title=title, notes=left_out)
    make_console().print(leaderboard_table(board))
    for name in formats:
        print_line(f"Report: {out / FORMATS[name]}")
    if generations:
        from cst_bench.reporting.response_table import write_generations

        for path in write_generations(stored, out / "generations", show_text=show_text):
            print_line(f"Generations: {path}")
    if model_card is not None:
        print_line(f"Model card: {model_card}")
