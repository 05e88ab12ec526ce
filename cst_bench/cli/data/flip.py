"""`cst-bench data flip`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from cst_bench.cli.shared_options import column_option, out_file_option, seed_option

EPILOG = """\b
Examples:
  cst-bench data flip pairs.jsonl --method cst --task harmful_behaviors --out cst.jsonl
  cst-bench data flip pairs.jsonl --method dpo --task harmful_behaviors --out dpo.jsonl
  cst-bench data flip configurable-system-prompt-multitask.json --task harmful_behaviors --out cst.jsonl

The chosen response of a row is the one whose behaviour the configuration asks for. PAIRS has rows {"prompt",
"responses": {behaviour: text}, "meta"}, or the columns system, prompt, chosen, rejected of the released data."""


@click.command(epilog=EPILOG)
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option(
    "--task", required=True, metavar="TASK", help="Compliance task (name or file) that defines the configurations."
)
@click.option(
    "--method",
    type=click.Choice(["cst", "dpo"]),
    default="cst",
    help="Configurations to use: all of the task (cst) or only its first (dpo).",
)
@click.option(
    "--configuration",
    "configurations",
    multiple=True,
    show_default="the method's",
    metavar="ID",
    help="Configuration to use instead; repeatable.",
)
@click.option(
    "--wording",
    show_default="the task's own",
    metavar="WORDING",
    help="Wording of the system prompts, one that the task names.",
)
@click.option("--paraphrases", is_flag=True, help="Draw each row's system prompt from the wording and its paraphrases.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    show_default="all",
    metavar="N",
    help="Use N random pairs: the same ones for each method.",
)
@seed_option("the sample and for drawing paraphrases")
@column_option
@click.option(
    "--allow-test-prompts",
    is_flag=True,
    help="Keep prompts of the task's test and validation splits: for inspection only, never for training.",
)
@out_file_option("Training rows to write, as jsonl.", required=True)
def command(
    *,
    pairs: Path,
    task: str,
    method: str,
    configurations: tuple[str, ...],
    wording: str | None,
    paraphrases: bool,
    sample: int | None,
    seed: int,
    columns: Mapping[str, str],
    allow_test_prompts: bool,
    out: Path,
) -> None:
    """Turn the preference pairs in PAIRS into training rows for CST or DPO."""
    from cst_bench.cli.console import print_line
    from cst_bench.preferences import FlipOptions, flip

    options = FlipOptions(
        pairs=pairs,
        task=task,
        method=method,
        configurations=configurations,
        wording=wording,
        paraphrases=paraphrases,
        sample=sample,
        seed=seed,
        columns=columns,
        allow_test_prompts=allow_test_prompts,
        out=out,
    )
    flips = flip(options)
    counts = ", ".join(f"{name} {count}" for name, count in flips.by_configuration.items())
    print_line(f"{len(flips.rows)} rows ({counts}): {out}", stderr=True)
    for reason, count in flips.left_out.items():
        print_line(f"left out, {reason}: {count}", stderr=True)
