"""`cst-bench data flip`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

EPILOG = """\b
Examples:
  cst-bench data flip pairs.jsonl --method cst --task harmful_behaviors --out cst.jsonl
  cst-bench data flip pairs.jsonl --method dpo --task harmful_behaviors --out dpo.jsonl
  cst-bench data flip configurable-system-prompt-multitask.json --task harmful_behaviors --out cst.jsonl

PAIRS has rows {"prompt", "responses": {behaviour: text}, "meta"}, or the released system, prompt, chosen, rejected."""


@click.command(epilog=EPILOG)
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--task", required=True, metavar="TASK", help="The compliance task whose configurations ask.")
@click.option("--method", default="cst", show_default=True, help="cst: all configurations; dpo: the first alone.")
@click.option("--configuration", "configurations", multiple=True, metavar="ID", help="These instead; repeatable.")
@click.option("--wording", metavar="WORDING", help="Which published wording of the system prompts.")
@click.option("--paraphrases", is_flag=True, help="Draw each row's system prompt from its wording and paraphrases.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the file calls it; repeatable.")
@click.option("--allow-test-prompts", is_flag=True, help="Keep prompts of the task's test split: to see, not to train.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE", help="jsonl.")
def command(**values: Any) -> None:
    """Turn PAIRS into training rows: chosen is the response whose behaviour the configuration asks for."""
    from cst_bench.cli.console import make_console
    from cst_bench.cli.shared_options import assignments
    from cst_bench.compliance.compliance_task import load_task
    from cst_bench.compliance.data import held_out
    from cst_bench.errors import UserError
    from cst_bench.preferences import flip, read_pairs, write_training_rows

    task, path = load_task(values["task"])
    found = flip(
        read_pairs(values["pairs"], task, assignments("--column", values["columns"])),
        task,
        values["method"],
        configurations=values["configurations"],
        wording=values["wording"],
        paraphrases=values["paraphrases"],
        seed=values["seed"],
        held_out=(lambda prompt: False) if values["allow_test_prompts"] else held_out(task, path),
    )
    if not found.rows:
        why = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items())
        raise UserError(f"{values['pairs']}: no training row comes out of it ({why})")
    write_training_rows(values["out"], found.rows)
    console = make_console(stderr=True)
    said = ", ".join(f"{name} {count}" for name, count in found.by_configuration.items())
    console.print(f"{len(found.rows)} rows ({said}): {values['out']}", soft_wrap=True, markup=False)
    for reason, count in found.left_out.items():
        console.print(f"left out, {reason}: {count}", soft_wrap=True, markup=False)
