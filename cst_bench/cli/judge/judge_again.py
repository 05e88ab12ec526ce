"""`cst-bench judge RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import card_options, json_option, judge_options

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench judge runs/my-run                     finish an interrupted judging, or use new labels and cards
  cst-bench judge runs/my-run --judge harmlessness --judge-model anthropic/claude-sonnet-4-0
  cst-bench judge runs/my-run --judge refusal_rules --task harmful_behaviors

The checkpoint is not loaded: the run holds the responses. Verdicts of a language model are cached, so that no call is
paid for twice."""


class _JudgeRun(click.Command):
    """A command whose name is its argument: `cst-bench judge RUN [OPTIONS]`."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the parts of the usage line after `cst-bench judge RUN`."""
        return ["[OPTIONS]"]


@click.command(name="RUN", cls=_JudgeRun, epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="JUDGE",
    help="Judge to use instead of the run's, for every task it supports; repeatable.",
)
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Judge only this task of the run; repeatable.")
@judge_options
@card_options(min_f1=None)
@click.option("--show-text", is_flag=True, help="Show prompts and responses in the report.")
@json_option("scores.json")
def command(
    *,
    run: Path,
    judges: tuple[str, ...],
    tasks: tuple[str, ...],
    judge_options: JudgeOptions,
    judge_card: Path | None,
    min_judge_f1: float | None,
    show_text: bool,
    as_json: bool,
) -> None:
    """Judge RUN again with another judge, or finish its judging; write its scores and report again."""
    from cst_bench.cli.console import ConsoleProgress, print_result, quiet_libraries
    from cst_bench.runs import JudgeRunOptions, judge_run

    quiet_libraries()
    options = JudgeRunOptions(
        run=run,
        judges=judges,
        judge_options=judge_options,
        tasks=tasks,
        judge_card=judge_card,
        min_judge_f1=min_judge_f1,
        show_text=show_text,
    )
    print_result(judge_run(options, ConsoleProgress()), as_json=as_json)
