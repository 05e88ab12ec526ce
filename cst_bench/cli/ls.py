"""`cst-bench ls`."""

from __future__ import annotations

import json
from pathlib import Path

import click

EPILOG = """\b
Examples:
  cst-bench ls
  cst-bench ls runs/paper other-runs --json"""


@click.command(epilog=EPILOG)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option("--json", "as_json", is_flag=True, help="A JSON list to standard output in place of the table.")
def command(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the runs in folders (runs/ if none is given): state, model, suite, scores."""
    from cst_bench.cli.console import make_console
    from cst_bench.errors import UserError
    from cst_bench.reporting.listing import list_runs, listing_table

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    found = list_runs(folders or (Path("runs"),))
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found], indent=2, ensure_ascii=False))
        return
    console = make_console()
    if not found:
        console.print("No runs here: `cst-bench run` makes one.")
        return
    console.print(listing_table(found))
