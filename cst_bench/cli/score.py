"""`cst-bench score`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    assignment_option,
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
  cst-bench score logs/2026-05-01_my-task.eval --task harmful_behaviors --judge local
  cst-bench score results.json --task harmful_behaviors --model openai:gpt-4o
  cst-bench score garak.report.jsonl --task harmful_behaviors --configuration S1
  cst-bench score memory.json --task harmful_behaviors --system-prompt S1='You are a careful assistant'

FILE is jsonl, json, csv, tsv, parquet, or a Markdown table. Each row has a prompt, a response, and either the system
prompt or the configuration (S1, S0, …) that the response was generated under. Or it is a log of Inspect (.eval, .json),
lm-eval (samples_TASK_DATE.jsonl), promptfoo (JSON, jsonl, CSV), garak (report.jsonl) or PyRIT (memory export)."""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--task",
    show_default="found by the file's system prompts",
    metavar="TASK",
    help="Compliance task (name or file) that defines the configurations.",
)
@click.option(
    "--format",
    show_default="recognized by the file's content",
    type=click.Choice(["inspect", "lm-eval", "promptfoo", "garak", "pyrit", "table"]),
    help="Tool whose log FILE is; `table` for a file with a row for each response.",
)
@click.option(
    "--model",
    show_default="the log's only one",
    metavar="NAME",
    help="Model whose responses are scored, in a log of several models.",
)
@click.option(
    "--configuration",
    show_default="by each row's system prompt",
    metavar="NAME",
    help="Configuration that all responses in FILE were made under.",
)
@assignment_option(
    "--system-prompt",
    "system_prompts",
    "NAME=TEXT",
    "Configuration of the rows whose system prompt contains TEXT, for wordings that the task does not have",
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
    format: str | None,
    model: str | None,
    configuration: str | None,
    system_prompts: Mapping[str, str],
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
        format=format,
        model=model,
        configuration=configuration,
        system_prompts=system_prompts,
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
