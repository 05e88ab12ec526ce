"""`cst-bench train`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cst_bench.checkpoint.options import DTYPES
from cst_bench.cli.console import ConsoleProgress

if TYPE_CHECKING:
    from cst_bench.tuning.training_callbacks import Steps

EPILOG = """\b
Examples:
  cst-bench train tiny --data cst.jsonl                           rows of `cst-bench data flip`
  cst-bench train tiny --data pairs.jsonl --task tiny_sealed --method dpo
  cst-bench train openhermes --data cst.jsonl --out models/hermes-cst
  cst-bench train openhermes --base ./my-mistral --set quantization=null --data cst.jsonl
  cst-bench train tiny --data cst.jsonl --set trl.beta=0.3 --seed 1
  accelerate launch -m cst_bench train llama8b --data cst.jsonl

RECIPE is a name in training/recipes or a file. The result is a checkpoint for `cst-bench run`. A training that was cut
off continues with the same command. TensorBoard, W&B: --set trl.report_to=tensorboard."""


@click.command(epilog=EPILOG)
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Training rows, or pairs with --task.")
@click.option("--task", metavar="TASK", help="Whose configurations a file of pairs is flipped by.")
@click.option("--method", metavar="METHOD", help="cst or dpo, for a file of pairs.  [default: the recipe's]")
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the file calls it; repeatable.")
@click.option("--base", "--model", "base", metavar="CHECKPOINT", help="In place of the recipe's base.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub id.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Over the recipe's: trl.beta=0.3; repeatable."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn: adapter, order of rows.")
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", help="Of the base.  [default: the recipe's]")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the base brings. Only if you have read it.")
@click.option(
    "--system-as",
    type=click.Choice(["system", "user-prefix"]),
    default="system",
    show_default=True,
    help="user-prefix: put the system prompt before the user's text; evaluate with the same.",
)
@click.option("--chat-template", metavar="FILE", help="A Jinja chat template in place of the tokenizer's own.")
@click.option("--stop-token", multiple=True, metavar="TOKEN", help="A token that ends a turn, besides the base's own.")
@click.option("--truncate", is_flag=True, help="Cut rows that are longer than max_length, and count them.")
@click.option("--drop-long", is_flag=True, help="Leave such rows out, and count them.  [default: refuse them]")
@click.option("--stock", is_flag=True, help="TRL's own forward pass, with padding.")
@click.option("--merge", is_flag=True, help="Write a whole model, the adapter merged into its base.")
@click.option("--resume/--restart", "resume", default=True, help="Continue a training that was cut off, or begin anew.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Its folder.  [default: runs/RECIPE-METHOD-SEED]"
)
@click.option("--json", "as_json", is_flag=True, help="Print training.json to standard output.")
def command(**values: Any) -> None:
    """Train a model by RECIPE on preference rows: DPO or CST, with TRL."""
    from cst_bench.checkpoint import CheckpointOptions
    from cst_bench.cli.console import make_console, quiet_libraries
    from cst_bench.cli.shared_options import assignments
    from cst_bench.errors import UserError

    quiet_libraries()
    from cst_bench.checkpoint.files import TRAINING
    from cst_bench.tuning import TrainOptions, train

    if values["truncate"] and values["drop_long"]:
        raise UserError("--truncate and --drop-long: say one of them")
    loading = ("revision", "dtype", "device", "trust_remote_code", "system_as", "chat_template", "stop_token")
    progress = TrainingConsole(make_console(stderr=True))
    result = train(
        TrainOptions(
            recipe=values["recipe"],
            data=values["data"],
            out=values["out"],
            base=values["base"],
            loading=CheckpointOptions(**{name: values[name] for name in loading}),
            method=values["method"],
            task=values["task"],
            columns=assignments("--column", values["columns"]),
            seed=values["seed"],
            changes=values["changes"],
            stock=values["stock"],
            long="truncate" if values["truncate"] else "drop" if values["drop_long"] else "refuse",
            merge=values["merge"],
            restart=not values["resume"],
        ),
        progress,
    )
    if result.was_finished:
        progress.note(f"this training is finished, nothing to do: {result.folder}")
    if int(os.environ.get("RANK", "0")) > 0:
        return  # one process of several says it
    if values["as_json"]:
        click.echo((result.folder / TRAINING).read_text(encoding="utf-8"), nl=False)
        return
    make_console().print(f"Checkpoint: {result.folder}", soft_wrap=True, markup=False)


class TrainingConsole(ConsoleProgress):
    """A training's progress (`cst_bench.tuning.training_callbacks.TrainingProgress`) on a console."""

    def __init__(self, console: Console) -> None:
        """Draws on the console given."""
        super().__init__(console)
        self._own = console

    @contextmanager
    def training(self, total: int, done: int) -> Iterator[Steps]:
        """A bar with loss, margin, accuracy and time left; a line for each of TRL's logs if this is no terminal."""
        if not self._own.is_terminal:
            yield _Lines(self._own, total)
            return
        columns = (
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self._own) as bar:
            task = bar.add_task("", total=total, completed=done, figures="", left="")
            yield _Bar(bar, task)


class _Lines:
    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total

    def step(self, done: int) -> None:
        pass

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        self._console.print(
            f"step {done}/{self._total}  {_figures(metrics)}  {_left(seconds_left)}", soft_wrap=True, markup=False
        )


class _Bar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def step(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        self._bar.update(self._task, figures=_figures(metrics), left=_left(seconds_left))


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def _left(seconds: float) -> str:
    return f"{timedelta(seconds=round(seconds))} left"
