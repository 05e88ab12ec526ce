"""A run from start to end: gate, responses, capabilities, verdicts, scores, report. Killed, it continues where it was."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench import capabilities
from cst_bench.checkpoint.subject import Subject
from cst_bench.files import slug
from cst_bench.progress import Progress, Silent
from cst_bench.runs.finishing import attach_cards, finish, judge_all
from cst_bench.runs.run_folder import RunFolder, locked, open_folder
from cst_bench.runs.run_plan import Plan, PlannedCapability, PlannedCompliance, RunOptions, make_plan

NO_LIKELIHOODS = "an API model gives no log-likelihoods"


@dataclass(frozen=True)
class RunResult:
    """Where a run is and what it found."""

    folder: Path
    scores: dict[str, Any]
    was_finished: bool
    """The folder held this run, finished: nothing was done."""


def run(options: RunOptions, progress: Progress | None = None) -> RunResult:
    """Evaluates one checkpoint on one suite, into a run folder.

    The same call on a folder that a killed run left continues it, repeating no finished response and no finished
    capability task, and ends with the same `scores.json` and `report.md`.

    Raises:
        UserError: something in the options is wrong, or the folder holds a run with other settings.
        Interrupted: an API failed for some responses; the same call tries those again.
    """
    progress = progress or Silent()
    plan = make_plan(options)
    subject = Subject(options.checkpoint, progress)
    path = options.out or Path("runs") / f"{slug(subject.label)}-{slug(plan.suite.name)}"
    settings = {"checkpoint": subject.identity, "device": options.checkpoint.device, **plan.settings}
    existed = path.exists()
    with locked(path):
        try:
            folder = open_folder(path, settings)
            if folder.finished:
                return RunResult(path, json.loads((path / "scores.json").read_text(encoding="utf-8")), True)
            subject.pass_gate()
        except BaseException:
            if not existed:
                _remove_empty(path)
            raise
        try:
            return _fill(folder, plan, subject, options, progress)
        finally:
            subject.close()


def _fill(folder: RunFolder, plan: Plan, subject: Subject, options: RunOptions, progress: Progress) -> RunResult:
    """All that the checkpoint is needed for comes first, so that a judge that fails costs none of it."""
    for task in plan.compliance:
        _generate(folder, task, subject, progress)
    reasons = {
        name: reason
        for name, reason in (
            (one.spec.name, _capability(folder, one, subject, plan, progress)) for one in plan.capabilities
        )
        if reason is not None
    }
    judges = {task.spec.name: task.judge for task in plan.compliance}
    outcomes = judge_all(folder, judges, progress)
    attach_cards(folder, options.judge_card)
    scores = finish(folder, outcomes, show_text=options.show_text, reasons=reasons)
    return RunResult(folder.path, scores, False)


def _generate(folder: RunFolder, task: PlannedCompliance, subject: Subject, progress: Progress) -> None:
    """All responses of a task, in a log."""
    name = task.spec.name
    if folder.part("compliance", name)["state"] != "pending":
        return
    from cst_bench.compliance.inspect_task import build_task
    from cst_bench.compliance.logs import generate, usage

    built = build_task(task.spec, task.prompts, task.wording, task.judge, folder.manifest["settings"]["seed"])
    model = subject.inspect_model()
    started = time.monotonic()
    with progress.stage(f"{task.spec.title}: responses", len(built.dataset)) as count:
        log = generate(built, model, folder.path / "compliance" / name, count)
    folder.set_part(
        "compliance",
        name,
        state="generated",
        log=str(log.relative_to(folder.path.resolve())),
        seconds=round(time.monotonic() - started, 1),
        responses=len(built.dataset),
        usage=usage(log),
    )


def _capability(
    folder: RunFolder, task: PlannedCapability, subject: Subject, plan: Plan, progress: Progress
) -> str | None:
    """Scores a task, unless it has been; the reason if that can't be done."""
    target = folder.path / "capabilities"
    if capabilities.load(target, task.spec.name) is not None:
        return None
    if subject.checkpoint is None:
        folder.set_part("capabilities", task.spec.name, state="unavailable", reason=NO_LIKELIHOODS)
        return NO_LIKELIHOODS
    started = time.monotonic()
    with progress.stage(f"{task.spec.title}: log-likelihoods", 100) as count:
        done = 0

        def percent(part: int, total: int) -> None:
            nonlocal done
            now = 100 * part // max(1, total)
            count(now - done)
            done = now

        result = capabilities.evaluate_capability(
            subject.checkpoint,
            task.spec,
            task.path,
            data=task.data,
            limit=plan.limit,
            progress=percent,
        )
    capabilities.save(result, target)
    seconds = round(time.monotonic() - started, 1)
    said = {part.get("fallback") for part in folder.manifest["status"]["capabilities"].values()}
    folder.set_part("capabilities", task.spec.name, state="done", seconds=seconds, fallback=result.fallback)
    if result.fallback not in {None, *said}:
        progress.note(f"{task.spec.title}: scored lm-eval's stock way, which is slower: {result.fallback}")
    return None


def _remove_empty(path: Path) -> None:
    """Takes back a folder that holds nothing but what we put there before the fault showed."""
    for name in (".lock", "run.json"):
        (path / name).unlink(missing_ok=True)
    path.rmdir()
