"""`cst-bench report`."""

from __future__ import annotations

from pathlib import Path

import click

from cst_bench.reporting.formats import FORMATS

EPILOG = """\b
Examples:
  cst-bench report runs/                                       all finished runs in a folder
  cst-bench report runs/base runs/dpo runs/cst --format md --format html --out my-report
  cst-bench report runs/cst --model-card my-cst/README.md      scores into the card's metadata (model-index)
  cst-bench report runs/cst --generations                      its responses as tables, texts not shown

Models are ranked together only if they were asked the same prompts and judged by the same judges."""


@click.command(epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(list(FORMATS)),
    default=("md",),
    show_default=True,
    help="Repeatable.",
)
@click.option("--title", metavar="TEXT", help="Of the report.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/report"),
    show_default=True,
    metavar="DIR",
    help="Gets report.* and plots/.",
)
@click.option("--generations", is_flag=True, help="Write each model's responses, too, in generations/.")
@click.option("--show-text", is_flag=True, help="Put prompts and responses into those tables.")
@click.option(
    "--model-card",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="README.md",
    help="Write the scores of the one run into a model card's metadata.",
)
def command(
    runs: tuple[Path, ...],
    formats: tuple[str, ...],
    title: str | None,
    out: Path,
    generations: bool,
    show_text: bool,
    model_card: Path | None,
) -> None:
    """Write the leaderboard, tables, comparisons and pictures of RUNs, or of the runs in folders."""
    from cst_bench.cli.console import make_console
    from cst_bench.errors import UserError
    from cst_bench.reporting.leaderboard.write import write_reports
    from cst_bench.reporting.stored_run import read_runs
    from cst_bench.reporting.terminal import leaderboard_table

    if show_text and not generations:
        raise UserError("--show-text is for --generations")
    found, _ = read_runs(runs)
    if model_card is not None and len(found) > 1:
        raise UserError(f"--model-card is of one run, and these are {len(found)}: name the run of that model")
    if model_card is not None:
        from cst_bench.reporting.model_card import update_model_card

        update_model_card(model_card, found[0])
    board = write_reports(runs, out, formats, title=title)
    console = make_console()
    console.print(leaderboard_table(board))
    for name in formats:
        console.print(f"Report: {out / FORMATS[name]}", soft_wrap=True, markup=False)
    if generations:
        from cst_bench.reporting.response_table import write_generations

        for path in write_generations(found, out / "generations", show_text=show_text):
            console.print(f"Generations: {path}", soft_wrap=True, markup=False)
    if model_card is not None:
        console.print(f"Model card: {model_card}", soft_wrap=True, markup=False)
