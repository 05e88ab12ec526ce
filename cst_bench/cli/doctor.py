"""`cst-bench doctor`."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    checkpoint_options,
    data_dir_option,
    suite_option,
    task_data_option,
    task_limit_option,
    task_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from cst_bench.checkpoint import CheckpointOptions
    from cst_bench.runs.estimate import RunEstimate

EPILOG = """\b
Examples:
  cst-bench doctor
  cst-bench doctor ./my-model
  cst-bench doctor google/gemma-2-2b-it --system-as user-prefix
  cst-bench doctor ./my-model --chat-template fixed.jinja
  cst-bench doctor ./my-model --suite paper --data-dir ./data
  cst-bench doctor ./my-model --task harmful_behaviors --limit 20

Without --suite and --task only the tokenizer is loaded, not the weights. With them, time and memory of that run are
estimated, by a few seconds of its own work. The exit status is 2 if a fault in the chat template would make every score
wrong; the message says how to fix it."""


@click.command(epilog=EPILOG)
@checkpoint_options
@suite_option
@task_option
@task_data_option
@data_dir_option
@task_limit_option
def command(
    *,
    checkpoint: CheckpointOptions,
    suite: str | None,
    tasks: tuple[str, ...],
    data: Mapping[str, Path],
    data_dir: Path | None,
    limit: int | None,
) -> None:
    """Check the installation, keys and the chat template of CHECKPOINT; estimate what a run costs."""
    from cst_bench.checkpoint.evaluated_model import EvaluatedModel
    from cst_bench.cli.console import ConsoleProgress, make_console, print_line, quiet_libraries
    from cst_bench.errors import UserError
    from cst_bench.runs import RunOptions, make_plan
    from cst_bench.runs.estimate import estimate_run
    from cst_bench.runs.run_folder import PACKAGES

    quiet_libraries()
    named = {"--data": data, "--data-dir": data_dir, "--limit": limit}
    if not suite and not tasks and any(value for value in named.values()):
        option = next(name for name, value in named.items() if value)
        raise UserError(f"{option} is about the tasks of a run: name them with --suite or --task")
    print_line(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    _print_device(checkpoint)
    _print_keys(checkpoint)
    progress = ConsoleProgress(make_console())
    options = RunOptions(checkpoint, suite, tasks, data=data, data_dir=data_dir, limit=limit)
    plan = make_plan(options) if suite or tasks else None
    model = EvaluatedModel(checkpoint, progress)
    model.pass_gate()
    if plan is None:
        return
    for note in plan.notes:
        progress.note(note)
    model.limit_threads()
    _ = model.checkpoint  # loaded now, to be part of the start
    loaded = time.time() - _process_start()
    estimate = estimate_run(plan, model)
    make_console().print(_table(estimate, loaded))
    for line in estimate.lines:
        print_line(line)


def _print_device(checkpoint: CheckpointOptions) -> None:
    import psutil
    import torch

    from cst_bench.checkpoint.loading import placement
    from cst_bench.cli.console import print_line

    device = torch.device(placement(checkpoint)[0])
    if torch.cuda.is_available():
        gpu = device if device.type == "cuda" else torch.device("cuda")
        free, total = torch.cuda.mem_get_info(gpu)
        print_line(f"GPU: {torch.cuda.get_device_name(gpu)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    else:
        print_line(f"GPU: none; {torch.get_num_threads()} CPU threads")
    memory = psutil.virtual_memory()
    print_line(f"Memory: {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")


def _print_keys(checkpoint: CheckpointOptions) -> None:
    """Print which keys are set, never their values, and what to do about those that are not."""
    from cst_bench import content
    from cst_bench.checkpoint import resolve
    from cst_bench.checkpoint.api import key_variable
    from cst_bench.cli.console import print_line
    from cst_bench.judging import FOLDER, read_judge_file

    users: dict[str, list[str]] = {}
    for name in content.names(FOLDER):
        file = read_judge_file(content.find(FOLDER, name, "judge"))
        if file.kind == "llm" and (key := key_variable(str(getattr(file, "model", "")))) is not None:
            users.setdefault(key, []).append(name)
    remedies = {
        key: f"the judges {', '.join(names)} need it, unless --judge or --judge-model names another"
        for key, names in users.items()
    }
    source = resolve(checkpoint.name)
    if source.kind == "inspect" and (key := key_variable(source.name)) is not None:
        remedies[key] = f"{source.label} needs it"
    for key, remedy in remedies.items():
        state = "set" if os.environ.get(key) else f"not set: {remedy}; to set it: export {key}=…"
        print_line(f"{key}: {state}")
    from huggingface_hub import get_token

    login = "set" if get_token() else "not set: only gated models and data sets of the Hub need it; `hf auth login`"
    print_line(f"HF_TOKEN: {login}")


def _process_start() -> float:
    import psutil

    return float(psutil.Process().create_time())


def _table(estimate: RunEstimate, loaded: float) -> Table:
    """Return the cost of each task; `loaded` are the seconds until the weights are loaded."""
    from rich.table import Table

    from cst_bench.escape import plain
    from cst_bench.runs.estimate import duration

    table = Table(title="What the run costs", title_justify="left", title_style="bold")
    table.add_column("Task", overflow="fold")
    for title in ("Samples", "Tokens", "Time"):
        table.add_column(title, justify="right", no_wrap=True)
    if estimate.seconds is not None:
        table.add_row("start", "", "", duration(loaded + estimate.start))
    for task in estimate.tasks:
        tokens = "" if task.tokens is None else f"{task.tokens:,}"
        time_taken = "" if task.seconds is None else duration(task.seconds)
        table.add_row(plain(task.title), f"{task.samples:,} {task.unit}", tokens, time_taken)
    if estimate.seconds is not None:
        total = duration(loaded + estimate.start + estimate.seconds)
        table.add_row("in all", "", "", total, style="bold")
    return table
