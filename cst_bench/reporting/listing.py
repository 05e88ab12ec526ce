"""The runs in some folders at a glance, finished or not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cst_bench.escape import plain
from cst_bench.numbers import number
from cst_bench.workfolder import is_locked

_SCORES = ("compliance", "capabilities")


@dataclass(frozen=True)
class ListedRun:
    """A run folder."""

    folder: str
    state: str
    """finished, running, interrupted or unreadable."""
    at: str = ""
    """Of a run that isn't finished: the part that it is at."""
    model: str = ""
    suite: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Configurations, and the averages `compliance` and `capabilities`."""
    when: str = ""
    """Began, UTC."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def list_runs(folders: Sequence[Path]) -> list[ListedRun]:
    """All run folders at or below some folders, oldest first; what can't be read is listed as that."""
    manifests = {path.resolve(): path for folder in folders for path in sorted(folder.rglob("run.json"))}
    found = [_listed(path) for path in manifests.values()]
    return sorted(found, key=lambda one: (one.when, one.folder))


def _listed(path: Path) -> ListedRun:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        settings, status = manifest["settings"], manifest["status"]
        finished = status["run"] == "finished"
        return ListedRun(
            folder=str(path.parent),
            state="finished" if finished else "running" if is_locked(path.parent) else "interrupted",
            at="" if finished else _part(settings, status),
            model=str(settings["checkpoint"]["label"]),
            suite=str(settings["suite"]["name"]),
            scores=_scores(path.parent) if finished else {},
            when=str(manifest["started"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ListedRun(folder=str(path.parent), state="unreadable")


def _scores(folder: Path) -> dict[str, float | None]:
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    found = {
        name: of["score"]
        for task in scores["compliance"].values()
        for name, of in task.items()
        if name not in ("joint", "reference")
    }
    averages = {name: scores["averages"][name] for name in _SCORES}
    return {**found, **{name: of["score"] for name, of in averages.items() if of is not None}}


def _part(settings: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """The first part that isn't done."""
    for task in settings["compliance"]:
        if status["compliance"].get(task, {}).get("state", "pending") == "pending":
            return f"responses of {task}"
    for task in settings["capabilities"]:
        if task not in status["capabilities"]:
            return str(task)
    for task in settings["compliance"]:
        if status["compliance"][task]["state"] != "judged":
            return f"verdicts of {task}"
    return "scores"


def listing_table(runs: Sequence[ListedRun]) -> Table:
    """80 columns wide at most; folders are below the one that holds all."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("Run", "Model", "Suite"):
        table.add_column(title, overflow="fold")
    for title in ("S1", "S0", "Avg.", "Cap."):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("State", overflow="fold")
    shared = os.path.commonpath([str(Path(run.folder).absolute().parent) for run in runs]) if runs else ""
    for run in runs:
        values = [number(run.scores.get(name), 1) for name in ("S1", "S0", "compliance")]
        state = " ".join(filter(None, (run.state, run.at and f"at {run.at}", run.when[:10])))
        texts = (os.path.relpath(run.folder, shared), run.model, run.suite)
        table.add_row(*map(plain, texts), *values, number(run.scores.get("capabilities"), 100), plain(state))
    return table
