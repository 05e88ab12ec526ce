"""`cst-bench judge bench`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    column_option,
    json_option,
    judge_options,
    label_data_option,
    labelled_by_option,
    out_folder_option,
    seed_option,
    value_option,
)

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench judge bench refusal_rules harmlessness=openai/gpt-4o          on all label sets
  cst-bench judge bench refusal_rules ./my-judge --labels xstest --labels mine.csv --labelled-by human
  cst-bench judge bench refusal_rules --data xstest=./labels --data harmbench=./labels --out compared

JUDGE is a name (`cst-bench judge list`), a file or a folder, with =MODEL for a judge that asks a model; the same judge
can be named with several models. A label set is fetched when it is used, and kept in the cache folder. Tables show
numbers only, never a text of the data. Beside the judges stand verdicts that come with the labels, the annotators
against each other, and what is published of other judges."""


@click.command(epilog=EPILOG)
@click.argument("judges", nargs=-1, required=True, metavar="JUDGE[=MODEL]...")
@click.option(
    "--labels",
    multiple=True,
    show_default="all label sets",
    metavar="SET",
    help="Label set (xstest, harmbench, gptfuzz), or file with labelled responses; repeatable.",
)
@label_data_option
@judge_options
@labelled_by_option()
@column_option
@value_option
@seed_option("the bootstrap")
@out_folder_option("Folder for bench.json and report.md.", "nothing is written")
@json_option("the comparison as JSON")
def command(
    *,
    judges: tuple[str, ...],
    labels: tuple[str, ...],
    data: Mapping[str, Path],
    judge_options: JudgeOptions,
    labelled_by: str | None,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure judges beside each other on labelled responses, published sets by people or files of your own."""
    from cst_bench.calibration.calibration_report import bench_table
    from cst_bench.calibration.judge_comparison import JudgeBenchOptions, judge_bench
    from cst_bench.cli.console import ConsoleProgress, make_console, print_json, print_line, quiet_libraries

    quiet_libraries()
    options = JudgeBenchOptions(
        judges=judges,
        labels=labels,
        data=data,
        judge_options=judge_options,
        columns=columns,
        values=values,
        labelled_by=labelled_by,
        seed=seed,
        out=out,
    )
    measured = judge_bench(options, ConsoleProgress())
    if as_json:
        print_json(measured.as_json())
        return
    make_console().print(bench_table(measured))
    if out is not None:
        print_line(f"Report: {out / 'report.md'}")
