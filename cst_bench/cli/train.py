"""`cst-bench train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import column_option, json_option, loading_options, out_folder_option, seed_option

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions

EPILOG = """\b
Examples:
  cst-bench train tiny --data cst.jsonl                           rows of `cst-bench data flip`
  cst-bench train tiny --data pairs.jsonl --task tiny_sealed --method dpo
  cst-bench train openhermes --data cst.jsonl --out models/hermes-cst
  cst-bench train openhermes --base ./my-mistral --set quantization=null --data cst.jsonl
  cst-bench train tiny --data cst.jsonl --set trl.beta=0.3 --seed 1
  accelerate launch -m cst_bench train llama8b --data cst.jsonl

RECIPE is a name in training/recipes, or a file. With `--dtype auto`, the recipe's dtype is used. The result is a
checkpoint: evaluate it with `cst-bench run`, and with the same --system-as. The same command continues an interrupted
training. For TensorBoard: --set trl.report_to=tensorboard."""


@click.command(epilog=EPILOG)
@click.argument("recipe")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    show_default="the recipe's",
    metavar="FILE",
    help="Training rows, or preference pairs (with --task).",
)
@click.option("--task", metavar="TASK", help="Compliance task whose configurations turn pairs into training rows.")
@click.option(
    "--method",
    type=click.Choice(["cst", "dpo"]),
    show_default="the recipe's",
    help="Method that turns pairs into training rows.",
)
@column_option
@click.option(
    "--base", "--model", "base", show_default="the recipe's", metavar="CHECKPOINT", help="Base model to train."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Override a recipe key, e.g. trl.beta=0.3; repeatable."
)
@seed_option("adapter initialisation and data order")
@loading_options
@click.option("--truncate", is_flag=True, help="Truncate rows longer than max_length, and count them.")
@click.option("--drop-long", is_flag=True, help="Drop rows longer than max_length, and count them.")
@click.option("--stock", is_flag=True, help="Use TRL's own forward pass, with padding.")
@click.option("--merge", is_flag=True, help="Write a full model, with the adapter merged into its base.")
@click.option("--resume/--restart", "resume", default=True, help="Continue an interrupted training, or start again.")
@out_folder_option("Folder of the trained checkpoint.", "runs/RECIPE-METHOD-SEED")
@json_option("training.json")
def command(
    *,
    recipe: str,
    data: Path | None,
    task: str | None,
    method: str | None,
    columns: Mapping[str, str],
    base: str | None,
    changes: tuple[str, ...],
    seed: int,
    loading: CheckpointOptions,
    truncate: bool,
    drop_long: bool,
    stock: bool,
    merge: bool,
    resume: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train a model by RECIPE on preference rows: DPO or CST, with TRL.

    Rows longer than the recipe's max_length are refused, unless --truncate or --drop-long is given.
    """
    from cst_bench.cli.console import print_file, print_line, quiet_libraries
    from cst_bench.cli.heap import ask_for_large_pages, keep_freed_memory, release_at
    from cst_bench.cli.training_console import TrainingConsole
    from cst_bench.errors import UserError

    ask_for_large_pages()
    kept = keep_freed_memory()
    quiet_libraries()
    from cst_bench.checkpoint.checkpoint_files import TRAINING
    from cst_bench.tuning import TrainOptions, train

    if truncate and drop_long:
        raise UserError("--truncate and --drop-long exclude each other: give one of them")
    options = TrainOptions(
        recipe=recipe,
        data=data,
        out=out,
        base=base,
        loading=loading,
        method=method,
        task=task,
        columns=columns,
        seed=seed,
        changes=changes,
        stock=stock,
        long="truncate" if truncate else "drop" if drop_long else "refuse",
        merge=merge,
        restart=not resume,
    )
    progress = TrainingConsole(after_step=release_at if kept else None)
    result = train(options, progress)
    if result.was_finished:
        progress.note(f"this training is finished, nothing to do: {result.folder}")
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of several processes, only the first prints the result
    if as_json:
        print_file(result.folder / TRAINING)
    else:
        print_line(f"Checkpoint: {result.folder}")
