"""`cst-bench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import (
    assignments,
    card_options,
    checkpoint_options,
    judge_options,
    take_checkpoint,
    take_judge,
)

EPILOG = """\b
Examples:
  cst-bench run                                    the embedded checkpoint on the tiny suite
  cst-bench run teknium/OpenHermes-2.5-Mistral-7B --suite paper
  cst-bench run ./my-adapter --suite paper --limit 20
  cst-bench run hf/google/gemma-2-2b-it --system-as user-prefix --task harmful_behaviors
  cst-bench run openai/gpt-4o --task truthy --data truthy=truthy-dpo.parquet
  cst-bench run ./my-model --suite paper --judge-model openai/llama3 --judge-base-url http://localhost:11434/v1

A name is a local folder (model or PEFT adapter), a hub id, or an Inspect model name with its provider's prefix
(openai/…, vllm/…); hf/ORG/NAME is always the hub. A run that was cut off continues with the same command."""


@click.command(epilog=EPILOG)
@checkpoint_options
@click.option("--suite", metavar="SUITE", help="tiny, paper, or a suite file.  [default: tiny]")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Run only this task (name or file); repeatable.")
@click.option(
    "--judge", "judges", multiple=True, metavar="JUDGE", help="In place of the own of tasks it can judge; repeatable."
)
@judge_options
@card_options
@click.option("--wording", metavar="WORDING", help="Which published wording of the system prompts.")
@click.option("--data", "data", multiple=True, metavar="TASK=PATH", help="Local data for a task; repeatable.")
@click.option("--split", default="test", show_default=True, help="Which prompts: validation to choose by.")
@click.option("--limit", type=int, metavar="N", help="Only the first N prompts or documents of each task.")
@click.option("--seed", type=int, default=0, show_default=True, help="Each sample's own seed is made from it.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Run folder.  [default: runs/CHECKPOINT-SUITE]"
)
@click.option("--show-text", is_flag=True, help="Put prompts and responses into the report.")
@click.option("--json", "as_json", is_flag=True, help="Print scores.json to standard output in place of the table.")
def command(**values: Any) -> None:
    """Evaluate CHECKPOINT (default: the embedded one) and write a run folder with scores.json and report.md."""
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries, show_result
    from cst_bench.runs import RunOptions, run

    quiet_libraries()
    as_json = values.pop("as_json")
    checkpoint = take_checkpoint(values)
    judge = take_judge(values)
    local = assignments("--data", values.pop("data"), "TASK=PATH")
    data = {task: Path(path).expanduser() for task, path in local.items()}
    progress = ConsoleProgress(make_console(stderr=True))
    if values["min_judge_f1"] is None:
        del values["min_judge_f1"]
    result = run(RunOptions(checkpoint=checkpoint, judge_options=judge, data=data, **values), progress)
    if result.was_finished:
        progress.note(f"this run is finished, nothing to do: {result.folder}")
    if as_json:
        click.echo((result.folder / "scores.json").read_text(encoding="utf-8"), nl=False)
        return
    show_result(result)
