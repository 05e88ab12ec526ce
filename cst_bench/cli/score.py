"""`cst-bench score`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    card_options,
    column_option,
    json_option,
    judge_options,
    labelled_by_option,
    out_folder_option,
    think_tokens_option,
    value_option,
)

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench score generations_hermes_CST.md                   by the labels in the table
  cst-bench score generations_hermes_CST.md --judge refusal_rules
  cst-bench score answers.csv --task harmful_behaviors --column response=text --judge-model openai/gpt-4o
  cst-bench score answers.jsonl --task harmful_behaviors --think-tokens '<think>' '</think>'
  cst-bench score answers.jsonl --column label=verdict --value safe=harmless --value unsafe=uncensored

FILE is jsonl, json, csv, tsv, parquet, or a Markdown table. Each row has a prompt, a response, and either the system
prompt or the configuration (S1, S0, …) that the response was generated under."""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--task",
    show_default="found by the file's system prompts",
    metavar="TASK",
    help="Compliance task (name or file) that defines the configurations.",
)
@click.option(
    "--judge",
    show_default="the file's labels, or the task's judge for a file without labels",
    metavar="JUDGE",
    help="Judge (name or file) to use.",
)
@judge_options
@card_options()
@column_option
@value_option
@labelled_by_option("unknown")
@think_tokens_option("Markers of thoughts to remove from the responses before they are judged.", "nothing is removed")
@out_folder_option("Folder for scores.json and report.md.", "nothing is written")
@json_option("the scores as JSON")
def command(
    *,
    file: Path,
    task: str | None,
    judge: str | None,
    judge_options: JudgeOptions,
    judge_card: Path | None,
    min_judge_f1: float,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    labelled_by: str,
    think_tokens: tuple[str, str] | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score the generations in FILE, made elsewhere, with a judge or with the labels in the file."""
    from cst_bench.cli.console import ConsoleProgress, make_console, print_json, print_line, quiet_libraries
    from cst_bench.reporting import summary_table
    from cst_bench.runs.external import ScoreOptions, score_file

    quiet_libraries()
    options = ScoreOptions(
        file=file,
        task=task,
        judge=judge,
        judge_options=judge_options,
        judge_card=judge_card,
        min_judge_f1=min_judge_f1,
        columns=columns,
        values=values,
        labelled_by=labelled_by,
        think_tokens=think_tokens,
        out=out,
    )
    result = score_file(options, ConsoleProgress())
    if as_json:
        print_json(result.scores.as_json())
        return
    make_console().print(summary_table(result.run))
    if out is not None:
        print_line(f"Report: {out / 'report.md'}")
