"""`cst-bench judge RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import card_options, judge_options, take_judge

EPILOG = """\b
Examples:
  cst-bench judge runs/my-run                     finish what a dead judge left, or take up new labels and cards
  cst-bench judge runs/my-run --judge harmlessness --judge-model anthropic/claude-sonnet-4-0
  cst-bench judge runs/my-run --judge refusal_rules --task harmful_behaviors

The checkpoint is not loaded: the responses are in the run. Verdicts of a language model are cached, so that a call that
was cut off pays for none twice."""


@click.command(name="RUN", epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--judge", "judges", multiple=True, metavar="JUDGE", help="For the tasks it can judge; repeatable.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Only this task of the run; repeatable.")
@judge_options
@card_options
@click.option("--show-text", is_flag=True, help="Put prompts and responses into the report.")
@click.option("--json", "as_json", is_flag=True, help="Print scores.json to standard output in place of the table.")
def command(**values: Any) -> None:
    """Finish the judging of RUN, or repeat it with another judge, and write its scores and report again."""
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries, show_result
    from cst_bench.runs import JudgeRunOptions, judge_run

    quiet_libraries()
    as_json = values.pop("as_json")
    judge = take_judge(values)
    result = judge_run(JudgeRunOptions(judge_options=judge, **values), ConsoleProgress(make_console(stderr=True)))
    if as_json:
        click.echo((result.folder / "scores.json").read_text(encoding="utf-8"), nl=False)
        return
    show_result(result)
