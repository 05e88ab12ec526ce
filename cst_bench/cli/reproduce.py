"""`cst-bench reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import assignment_option, json_option, judge_options, limit_option, out_folder_option
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench reproduce tiny                  the embedded checkpoint: pairs, DPO and CST, three seeds, Tables I to III
  cst-bench reproduce paper                 needs a GPU, the Hub and an API key for the judge
  cst-bench reproduce paper --models mine.yaml --limit 8 --judge-base-url http://localhost:8000/v1

NAME is a reproduction in training/reproductions, or a file. The same command continues an interrupted reproduction."""


@click.command(epilog=EPILOG)
@click.argument("name", default="tiny", required=False)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    show_default="the reproduction's",
    metavar="FILE",
    help="File with the models to use.",
)
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    show_default="the reproduction's",
    metavar="SEED",
    help="Random seed to train with; repeatable.",
)
@limit_option("the first N prompts, to try the chain")
@assignment_option("--data", "data", "NAME=PATH", "Local data to use for a task or a source of rows")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with local data by name: of tasks (harmful_behaviors.csv, arc/, …), of rows (truthy.jsonl), and of "
    "released pairs.",
)
@click.option(
    "--judge",
    metavar="JUDGE",
    help="Judge to use instead of a task's default, for every task it supports.",
)
@judge_options
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="2 on a CPU, 1 with a GPU",
    metavar="N",
    help="Steps to run at a time.",
)
@out_folder_option("Folder of the reproduction.", "runs/reproduce-NAME")
@json_option("tables.json")
def command(
    *,
    name: str,
    models: Path | None,
    seeds: tuple[int, ...],
    limit: int | None,
    data: Mapping[str, str],
    data_dir: Path | None,
    judge: str | None,
    judge_options: JudgeOptions,
    workers: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Reproduce the paper's results: preference pairs, DPO and CST, runs, Tables I to III."""
    from cst_bench.cli.console import ConsoleProgress, make_console, print_file, print_line, quiet_libraries
    from cst_bench.reporting.terminal import score_tables
    from cst_bench.reproduce import ReproduceOptions, reproduce

    quiet_libraries()
    judging = _judge_arguments(judge, judge_options)
    options = ReproduceOptions(
        name=name,
        out=out,
        models=models,
        seeds=seeds,
        limit=limit,
        data=data,
        data_dir=data_dir,
        workers=workers or _default_workers(),
        options={"data critique": judging, "run": judging},
    )
    result = reproduce(options, ConsoleProgress())
    if as_json:
        print_file(result.folder / "tables.json")
        return
    make_console().print(score_tables(result.tables, result.flags))
    print_line(f"Report: {result.folder / 'report.md'}")


def _judge_arguments(judge: str | None, options: JudgeOptions) -> list[str]:
    """Return the arguments that the chain passes on to the verbs that ask a judge."""
    if options.budget is not None:
        raise UserError("--max-cost is for single commands, and reproduce runs many: limit it at the judge's provider")
    values = {
        "--judge": judge,
        "--judge-model": options.model,
        "--judge-base-url": options.base_url,
        "--judge-connections": options.connections,
        "--judge-max-tokens": options.max_tokens,
        "--judge-reasoning-effort": options.reasoning_effort,
    }
    arguments = [text for name, value in values.items() if value is not None for text in (name, str(value))]
    return arguments if options.price is None else [*arguments, "--judge-price", *map(str, options.price)]


def _default_workers() -> int:
    import os

    import torch

    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
