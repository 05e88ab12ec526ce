"""Estimates of runs beside the runs: time of each task and of all, and peak memory.

    python benchmarks/estimates.py [CHECKPOINT] [--task TASK ...] [--limit N] [--data-dir DIR] [--wall] [--json FILE]

Estimate and run are processes of their own. Seconds are processor time, which another process on the machine changes
less than wall time; `--wall` takes wall time, for a GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import types
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CLOCKED = (
    "cst_bench.checkpoint.decoding_rates",
    "cst_bench.capabilities.scoring_cost",
    "cst_bench.compliance.overhead",
    "cst_bench.runs.estimate",
    "cst_bench.runs.evaluate",
    "cst_bench.runs.finishing",
)
"""Modules that measure time."""


def main() -> None:
    """Measure one set of tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="tiny")
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=["estimate", "run"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        print(json.dumps(_part(arguments)))
        return
    parts: dict[str, Any] = {}
    for part in ("estimate", "run"):
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        parts[part] = json.loads(done.stdout.splitlines()[-1])
    _print(parts["estimate"], parts["run"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(parts, indent=2) + "\n")


def _part(arguments: argparse.Namespace) -> dict[str, Any]:
    from cst_bench.checkpoint import CheckpointOptions
    from cst_bench.checkpoint.evaluated_model import EvaluatedModel
    from cst_bench.cli.console import quiet_libraries
    from cst_bench.progress import Silent
    from cst_bench.runs import RunOptions, make_plan, run
    from cst_bench.runs.estimate import estimate_run

    clock = time.monotonic if arguments.wall else time.process_time
    for name in CLOCKED:
        vars(import_module(name))["time"] = types.SimpleNamespace(monotonic=clock)
    started = clock() if arguments.wall else 0.0
    quiet_libraries()
    options = RunOptions(
        CheckpointOptions(arguments.checkpoint, dtype=arguments.dtype),
        tasks=tuple(arguments.task),
        limit=arguments.limit,
        data_dir=arguments.data_dir,
    )
    if arguments.part == "estimate":
        model = EvaluatedModel(options.checkpoint, Silent())
        model.limit_threads()
        _ = model.checkpoint
        loaded = clock() - started
        estimate = estimate_run(make_plan(options), model)
        assert estimate.memory is not None
        return {
            "tasks": {task.title: task.seconds for task in estimate.tasks},
            "all": loaded + estimate.start + (estimate.seconds or 0.0),
            "memory": estimate.memory.needed,
            "took": clock() - started - loaded,
            "unfinished": estimate.unfinished,
        }
    with tempfile.TemporaryDirectory() as folder:
        from dataclasses import replace

        manifest = run(replace(options, out=Path(folder) / "run")).run.manifest
    settings, status = manifest.settings, manifest.status
    tasks = {settings.capabilities[name].title: part.seconds for name, part in status.capabilities.items()}
    for name, part in status.compliance.items():
        judging = part.judging.seconds if part.judging is not None else 0.0
        tasks[settings.compliance[name].title] = (part.seconds or 0.0) + (judging or 0.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tasks": tasks, "all": clock() - started, "memory": peak}


def _print(estimate: dict[str, Any], run: dict[str, Any]) -> None:
    table = Table(title=f"The estimate took {estimate['took']:.1f} s")
    for title in ("", "estimate", "run", "ratio"):
        table.add_column(title, justify="right" if title else "left")
    rows = [(f"{title}, s", seconds, run["tasks"][title]) for title, seconds in estimate["tasks"].items()]
    rows += [("all, s", estimate["all"], run["all"]), ("memory, GB", estimate["memory"] / 1e9, run["memory"] / 1e9)]
    for title, expected, actual in rows:
        table.add_row(title, f"{expected:.2f}", f"{actual:.2f}", f"{expected / actual:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
