"""`cst-bench reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import judge_options

EPILOG = """\b
Examples:
  cst-bench reproduce tiny                  the embedded checkpoint: pairs, DPO and CST, three seeds, Tables I to III
  cst-bench reproduce paper                 needs a GPU, the hub and a key for the judge
  cst-bench reproduce paper --models mine.yaml --limit 8 --judge-base-url http://localhost:8000/v1

A chain that was cut off continues with the same command."""


@click.command(epilog=EPILOG)
@click.argument("name", default="tiny", required=False)
@click.option("--models", type=click.Path(path_type=Path), metavar="FILE", help="Models in place of the file's own.")
@click.option("--seed", "seeds", type=int, multiple=True, metavar="N", help="Training seeds in place of the file's.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only so many prompts: to try the chain.")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Local data for a task or a source; repeatable.")
@click.option("--judge", metavar="JUDGE", help="A judge in place of each task's own.")
@judge_options
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Steps at a time.  [default: 2 on a CPU, 1 with a GPU]"
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="[default: runs/reproduce-NAME]"
)
@click.option("--json", "as_json", is_flag=True, help="Print tables.json to standard output in place of the tables.")
def command(**values: Any) -> None:
    """Run the paper's whole chain (tiny or paper): pairs, DPO and CST, runs, Tables I to III."""
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.cli.shared_options import assignments
    from cst_bench.reporting.terminal import reproduced_tables
    from cst_bench.reproduce import ReproduceOptions, footnotes, reproduce

    quiet_libraries()
    as_json = values.pop("as_json")
    judging = [
        argument
        for name in ("judge", "judge_model", "judge_base_url", "judge_connections")
        if (value := values.pop(name)) is not None
        for argument in (f"--{name.replace('_', '-')}", str(value))
    ]
    values["data"] = assignments("--data", values["data"])
    values["workers"] = values["workers"] or _workers()
    options = ReproduceOptions(options={"data critique": judging, "run": judging}, **values)
    result = reproduce(options, ConsoleProgress(make_console(stderr=True)))
    if as_json:
        click.echo((result.folder / "tables.json").read_text(encoding="utf-8"), nl=False)
        return
    console = make_console()
    console.print(reproduced_tables(result.tables, footnotes(result.tables)))
    console.print(f"Report: {result.folder / 'report.md'}", soft_wrap=True, markup=False)


def _workers() -> int:
    import os

    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
