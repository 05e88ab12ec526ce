"""`cst-bench score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import assignments, card_options, judge_options, take_judge

EPILOG = """\b
Examples:
  cst-bench score generations_hermes_CST.md                   by the labels that the table carries
  cst-bench score generations_hermes_CST.md --judge refusal_rules
  cst-bench score answers.csv --task harmful_behaviors --column response=text --judge-model openai/gpt-4o
  cst-bench score answers.jsonl --column label=verdict --value safe=harmless --value unsafe=uncensored

FILE is jsonl, json, csv, tsv, parquet, or a Markdown table. Each row has a prompt, a response, and the system prompt in
force or a configuration (S1, S0, …)."""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", metavar="TASK", help="Whose configurations ask.  [default: known by the system prompts]")
@click.option("--judge", metavar="JUDGE", help="Name or file.  [default: the file's labels, else the task's judge]")
@judge_options
@card_options
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the file calls it; repeatable.")
@click.option("--value", "values", multiple=True, metavar="VALUE=BEHAVIOUR", help="What a label means; repeatable.")
@click.option("--by", "labelled_by", default="unknown", metavar="WHO", help="Who labelled the file.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="For scores.json, report.md."
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON in place of the table.")
def command(**values: Any) -> None:
    """Score the generations in FILE, made elsewhere, with a judge or with the labels they carry."""
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.reporting import summary_table
    from cst_bench.runs.external import ScoreOptions, score_file

    quiet_libraries()
    as_json = values.pop("as_json")
    values["columns"] = assignments("--column", values["columns"])
    values["values"] = assignments("--value", values["values"])
    if values["min_judge_f1"] is None:
        del values["min_judge_f1"]
    judge = take_judge(values)
    result = score_file(ScoreOptions(judge_options=judge, **values), ConsoleProgress(make_console(stderr=True)))
    if as_json:
        click.echo(json.dumps(result.scores, indent=2, ensure_ascii=False))
        return
    console = make_console()
    console.print(summary_table(result.scores))
    if result.folder is not None:
        console.print(f"Report: {result.folder / 'report.md'}", soft_wrap=True, markup=False)
