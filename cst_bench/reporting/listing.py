"""The runs below folders at a glance, finished or not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cst_bench.errors import UserError
from cst_bench.escape import plain
from cst_bench.numbers import number
from cst_bench.record import CompliancePart, Manifest, Scores
from cst_bench.reporting.run_check import check_run, run_folders
from cst_bench.workfolder import is_locked


@dataclass(frozen=True)
class ListedRun:
    """A run folder."""

    folder: str
    state: str
    """finished, damaged, running, interrupted or unreadable."""
    at: str = ""
    """Part that an unfinished run is at."""
    model: str = ""
    suite: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Configurations, and the averages `compliance` and `capabilities`."""
    when: str = ""
    """Start, UTC."""
    receipt: str | None = None
    """Digest of its receipt; None for a run without an intact one."""

    def as_json(self) -> dict[str, object]:
        """Return the run as a JSON object."""
        return asdict(self)


def list_runs(folders: Sequence[Path]) -> list[ListedRun]:
    """List all run folders at or below folders, oldest first; unreadable and damaged ones are listed as that.

    What is read here is compared with the run's receipt, and the size of all else: `cst-bench verify` reads all files.
    """
    paths = {path.resolve(): path for folder in folders for path in run_folders(folder)}
    runs = [_listed(path) for path in paths.values()]
    return sorted(runs, key=lambda run: (run.when, run.folder))


def _listed(folder: Path) -> ListedRun:
    try:
        check = check_run(folder, only_sizes=True)
        if check.state == "damaged":
            return ListedRun(folder=str(folder), state="damaged", at=check.faults[0].file)
        manifest = Manifest.read(folder)
        finished = manifest.status.run == "finished"
        scores = _scores(Scores.read(folder)) if finished else {}
    except UserError:
        return ListedRun(folder=str(folder), state="unreadable")
    return ListedRun(
        folder=str(folder),
        state="finished" if finished else "running" if is_locked(folder) else "interrupted",
        at="" if finished else _part(manifest),
        model=manifest.settings.checkpoint.label,
        suite=manifest.settings.suite.name,
        scores=scores,
        when=manifest.started,
        receipt=None if check.receipt is None or not finished else check.receipt.sha256,
    )


def _scores(scores: Scores) -> dict[str, float | None]:
    configurations = {
        name: score.score for task in scores.compliance.values() for name, score in task.configurations.items()
    }
    averages = {"compliance": scores.averages.compliance, "capabilities": scores.averages.capabilities}
    return configurations | {name: average.score for name, average in averages.items() if average is not None}


def _part(manifest: Manifest) -> str:
    """Return the first part that is not done."""
    status = manifest.status
    parts = {task: status.compliance.get(task, CompliancePart()) for task in manifest.settings.compliance}
    for task, part in parts.items():
        if part.state == "pending":
            return f"responses of {task}"
    for task in manifest.settings.capabilities:
        if task not in status.capabilities:
            return task
    for task, part in parts.items():
        if part.state != "judged":
            return f"verdicts of {task}"
    return "scores"


def listing_table(runs: Sequence[ListedRun]) -> Table:
    """Return the runs as a table, 80 columns wide at most; folders are relative to their common one."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("Run", "Model", "Suite"):
        table.add_column(title, overflow="fold")
    for title in ("S1", "S0", "Avg.", "Cap."):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("State", overflow="fold")
    shared = os.path.commonpath([str(Path(run.folder).absolute().parent) for run in runs]) if runs else ""
    for run in runs:
        values = [number(run.scores.get(name), 1) for name in ("S1", "S0", "compliance")]
        no_receipt = "no receipt" if run.state == "finished" and run.receipt is None else ""
        state = " ".join(filter(None, (run.state, run.at and f"at {run.at}", run.when[:10], no_receipt)))
        texts = (os.path.relpath(run.folder, shared), run.model, run.suite)
        table.add_row(*map(plain, texts), *values, number(run.scores.get("capabilities"), 100), plain(state))
    return table
