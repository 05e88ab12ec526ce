"""`cst-bench data critique`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    checkpoint_options,
    judge_options,
    limit_option,
    out_folder_option,
    seed_option,
)

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench data critique --task tiny_sealed --critique tiny_harmless --out pairs      the embedded checkpoint
  cst-bench data critique teknium/OpenHermes-2.5-Mistral-7B --task harmful_behaviors --out pairs
  cst-bench data critique ./my-model --task truthy --critique honest_assistant --data truthy.parquet --out pairs

CHECKPOINT answers each prompt (draft), criticises its answer, and rewrites it. A draft and a rewrite whose behaviours
the judge confirms become a preference pair. The same command continues an interrupted job."""


@click.command(epilog=EPILOG)
@checkpoint_options
@click.option("--task", required=True, metavar="TASK", help="Compliance task (name or file) with the prompts.")
@click.option(
    "--critique",
    default="harmless",
    metavar="CRITIQUE",
    help="Critique to make, a name in training/critiques or a file.",
)
@click.option(
    "--wording",
    show_default="the task's own",
    metavar="WORDING",
    help="Wording of the draft's system prompt, one that the task names.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    show_default="the task's data set",
    metavar="FILE",
    help="File with the prompts.",
)
@click.option("--split", default="train", metavar="SPLIT", help="Split of the prompts; `test` is refused.")
@limit_option("the first N prompts")
@click.option("--judge", show_default="the task's", metavar="JUDGE", help="Judge (name or file) to use.")
@judge_options
@seed_option("wordings and sampling")
@out_folder_option("Folder for pairs.jsonl and the data card.", "runs/CHECKPOINT-TASK-CRITIQUE")
def command(
    *,
    checkpoint: CheckpointOptions,
    task: str,
    critique: str,
    wording: str | None,
    data: Path | None,
    split: str,
    limit: int | None,
    judge: str | None,
    judge_options: JudgeOptions,
    seed: int,
    out: Path | None,
) -> None:
    """Make preference pairs from the drafts of CHECKPOINT and its own rewrites of them."""
    from cst_bench.cli.console import ConsoleProgress, print_line, quiet_libraries
    from cst_bench.preferences import critique_job

    quiet_libraries()
    options = critique_job.CritiqueOptions(
        checkpoint,
        task,
        out=out,
        critique=critique,
        wording=wording,
        data=data,
        split=split,
        limit=limit,
        judge=judge,
        judge_options=judge_options,
        seed=seed,
    )
    result = critique_job.critique(options, ConsoleProgress())
    card = result.card
    print_line(f"{card['pairs']} pairs of {card['settings']['prompts']} prompts: {result.pairs}", stderr=True)
    for reason, count in card["rows_not_used"].items():
        print_line(f"rows not used, {reason}: {count}", stderr=True)
    for reason, count in card["left_out"].items():
        print_line(f"left out, {reason}: {count}", stderr=True)
