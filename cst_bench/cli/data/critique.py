"""`cst-bench data critique`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import checkpoint_options, judge_options, take_checkpoint, take_judge

EPILOG = """\b
Examples:
  cst-bench data critique --task tiny_sealed --critique tiny_harmless --out pairs      the embedded checkpoint
  cst-bench data critique teknium/OpenHermes-2.5-Mistral-7B --task harmful_behaviors --out pairs
  cst-bench data critique ./my-model --task truthy --critique honest_assistant --data truthy.parquet --out pairs

A job that was cut off continues with the same command."""


@click.command(epilog=EPILOG)
@checkpoint_options
@click.option("--task", required=True, metavar="TASK", help="The compliance task whose training prompts are answered.")
@click.option(
    "--critique", default="harmless", show_default=True, metavar="NAME", help="In training/critiques, or a file."
)
@click.option("--wording", metavar="WORDING", help="Which published wording of the draft's system prompt.")
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Prompts from a local file instead.")
@click.option("--split", default="train", show_default=True, help="Which split of the task; never test.")
@click.option("--limit", type=int, metavar="N", help="Only the first N prompts.")
@click.option("--judge", metavar="JUDGE", help="A judge (name or file) in place of the task's own.")
@judge_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of wordings and sampling.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Its folder.  [default: runs/CHECKPOINT-TASK-CRITIQUE]",
)
def command(**values: Any) -> None:
    """Make preference pairs: CHECKPOINT answers, criticises its answer, and rewrites it."""
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.preferences.critique_job import CritiqueOptions, critique

    quiet_libraries()
    checkpoint, judge = take_checkpoint(values), take_judge(values)
    console = make_console(stderr=True)
    found = critique(CritiqueOptions(checkpoint, judge_options=judge, **values), ConsoleProgress(console))
    said = f"{found.card['pairs']} pairs of {found.card['settings']['prompts']} prompts: {found.pairs}"
    console.print(said, soft_wrap=True, markup=False)
    for reason, count in found.card["rows_not_used"].items():
        console.print(f"rows not used, {reason}: {count}", soft_wrap=True, markup=False)
    for reason, count in found.card["left_out"].items():
        console.print(f"left out, {reason}: {count}", soft_wrap=True, markup=False)
