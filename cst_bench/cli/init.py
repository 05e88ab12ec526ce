"""`cst-bench init`."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  cst-bench init task mine && cst-bench run --task ./mine.yaml
  cst-bench init judge mine --out judges && cst-bench judge calibrate judges/mine.yaml
  cst-bench init recipe mine && cst-bench train ./mine.yaml --out my-model

The files work as they are, with the embedded checkpoint and without network or API key; comments explain every key. A
file that exists is not overwritten."""
_NEXT = {
    "task": "cst-bench run --task {path}",
    "judge": "cst-bench judge calibrate {path}",
    "recipe": "cst-bench train {path} --out {name}-model",
}


@click.command(epilog=EPILOG)
@click.argument("kind", type=click.Choice(["task", "judge", "recipe"]))
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Folder for NAME.yaml and, if it needs one, its data file.",
)
def command(*, kind: str, name: str, out: Path) -> None:
    """Write a starter file for a task, judge or recipe of your own, called NAME."""
    from cst_bench.cli.console import print_line
    from cst_bench.starters import write_starter

    paths = write_starter(kind, name, out)
    for path in paths:
        print_line(f"Written: {path}")
    print_line(f"Try it: {_NEXT[kind].format(path=paths[0], name=name)}")
