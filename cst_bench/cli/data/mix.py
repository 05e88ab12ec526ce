"""`cst-bench data mix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cst_bench.preferences.mixing import MixSource

EPILOG = """\b
Examples:
  cst-bench data mix cst.jsonl truthy.parquet --out mixed.jsonl
  cst-bench data mix cst.jsonl jondurbin/truthy-dpo-v0.1=0.5 --without-test jondurbin/truthy-dpo-v0.1=truthy \
      --out mixed.jsonl
  cst-bench data mix mine.csv --column chosen=good --column rejected=bad --out mixed.jsonl

A SOURCE is a file (jsonl, json, csv, tsv, parquet) or a hub data set, with =WEIGHT for a part or for several copies."""


@click.command(epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE[=WEIGHT]...")
@click.option("--task", metavar="TASK", help="Task column of rows that bring none.  [default: the source's name]")
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the files call it; repeatable.")
@click.option(
    "--without-test",
    "tests",
    multiple=True,
    metavar="SOURCE=TASK",
    help="Leave out the rows of a source whose prompt is in a compliance task's test split; repeatable.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling and order.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE", help="jsonl.")
def command(**values: Any) -> None:
    """Put several sources of training rows into one multi-task set, shuffled, with a task column."""
    from cst_bench.cli.console import make_console
    from cst_bench.cli.shared_options import assignments
    from cst_bench.errors import UserError
    from cst_bench.preferences import write_training_rows
    from cst_bench.preferences.mixing import mix

    columns = assignments("--column", values["columns"])
    tests = assignments("--without-test", values["tests"])
    sources = [_source(text, values["task"], columns, tests) for text in values["sources"]]
    unused = tests.keys() - {source.name for source in sources}
    if unused:
        raise UserError(f"--without-test: {min(unused)} is no source here")
    found = mix(sources, seed=values["seed"])
    write_training_rows(values["out"], found.rows)
    console = make_console(stderr=True)
    for what, counts in (("source", found.by_source), ("task", found.by_task)):
        for name, count in counts.items():
            console.print(f"{what} {name}: {count}", soft_wrap=True, markup=False)
    for name, count in found.left_out.items():
        console.print(f"left out of {name}, test prompts: {count}", soft_wrap=True, markup=False)
    if found.repeated:
        console.print(f"rows that are in it more than once: {found.repeated}", soft_wrap=True, markup=False)
    console.print(f"{len(found.rows)} rows: {values['out']}", soft_wrap=True, markup=False)


def _source(text: str, task: str | None, columns: dict[str, str], tests: dict[str, str]) -> MixSource:
    from cst_bench.compliance.compliance_task import load_task
    from cst_bench.compliance.data import held_out
    from cst_bench.errors import UserError
    from cst_bench.preferences.mixing import MixSource

    name, equals, weight = text.rpartition("=")
    if not equals or Path(text).is_file():
        name, weight = text, "1"
    try:
        share = float(weight)
    except ValueError:
        raise UserError(f"{text}: {weight!r} is no weight: give a number, as in {name}=0.5") from None
    holds = held_out(*load_task(tests[name])) if name in tests else None
    return MixSource(name, share, task, columns, holds)
