"""`cst-bench ls`."""

from __future__ import annotations

from pathlib import Path

import click

from cst_bench.cli.shared_options import json_option

EPILOG = """\b
Examples:
  cst-bench ls
  cst-bench ls runs/paper other-runs --json"""


@click.command(epilog=EPILOG)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@json_option("the list as JSON")
def command(*, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the runs in the folders DIR (runs/ by default): state, model, suite, scores."""
    from cst_bench.cli.console import make_console, print_json, print_line
    from cst_bench.errors import UserError
    from cst_bench.reporting.listing import list_runs, listing_table

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    runs = list_runs(folders or (Path("runs"),))
    if as_json:
        print_json([run.as_json() for run in runs])
    elif runs:
        make_console().print(listing_table(runs))
    else:
        print_line("No runs here: `cst-bench run` makes one.")
