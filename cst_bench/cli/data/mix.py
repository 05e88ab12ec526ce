"""`cst-bench data mix`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import assignment_option, column_option, out_file_option, seed_option

if TYPE_CHECKING:
    from cst_bench.preferences.mixing import MixSource

EPILOG = """\b
Examples:
  cst-bench data mix cst.jsonl truthy.parquet --out mixed.jsonl
  cst-bench data mix cst.jsonl jondurbin/truthy-dpo-v0.1=0.5 \\
      --without-held-out jondurbin/truthy-dpo-v0.1=truthy --out mixed.jsonl
  cst-bench data mix mine.csv --column chosen=good --column rejected=bad --out mixed.jsonl

SOURCE is a file (jsonl, json, csv, tsv, parquet) or a data set on the Hub. WEIGHT 0.5 takes a random half of its rows,
2 takes every row twice. Rows are shuffled and have a task column."""


@click.command(epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE[=WEIGHT]...")
@click.option(
    "--task",
    show_default="the source's name",
    metavar="TASK",
    help="Value of the task column for rows that have none.",
)
@column_option
@assignment_option(
    "--without-held-out",
    "held_out_of",
    "SOURCE=TASK",
    "Leave out the rows of SOURCE whose prompt is in the test or validation split of the compliance task TASK",
)
@seed_option("sampling and row order")
@out_file_option("Training rows to write, as jsonl.", required=True)
def command(
    *,
    sources: tuple[str, ...],
    task: str | None,
    columns: Mapping[str, str],
    held_out_of: Mapping[str, str],
    seed: int,
    out: Path,
) -> None:
    """Mix several sources of training rows into one multi-task set."""
    from cst_bench.cli.console import print_line
    from cst_bench.errors import UserError
    from cst_bench.preferences import write_training_rows
    from cst_bench.preferences.mixing import mix

    parsed = [_parse_source(text, task, columns, held_out_of) for text in sources]
    unused = held_out_of.keys() - {source.name for source in parsed}
    if unused:
        raise UserError(f"--without-held-out: {min(unused)} is not a source of this mix")
    result = mix(parsed, seed=seed)
    write_training_rows(out, result.rows)
    for group, counts in (("source", result.by_source), ("task", result.by_task)):
        for name, count in counts.items():
            print_line(f"{group} {name}: {count}", stderr=True)
    for name, count in result.left_out.items():
        print_line(f"left out of {name}, held-out prompts: {count}", stderr=True)
    if result.repeated:
        print_line(f"repeated rows: {result.repeated}", stderr=True)
    print_line(f"{len(result.rows)} rows: {out}", stderr=True)


def _parse_source(text: str, task: str | None, columns: Mapping[str, str], held_out_of: Mapping[str, str]) -> MixSource:
    """Parse SOURCE[=WEIGHT]; the weight is 1 by default."""
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
        raise UserError(f"{text}: {weight!r} is not a weight: give a number, as in {name}=0.5") from None
    is_held_out = held_out(*load_task(held_out_of[name])) if name in held_out_of else None
    return MixSource(name, share, task, columns, is_held_out)
