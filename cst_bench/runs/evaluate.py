"""A run from start to end: gate, responses, capabilities, verdicts, scores, report. A killed run continues."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench import capabilities
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.compliance.logs import require_log_path
from cst_bench.errors import UserError
from cst_bench.files import slug
from cst_bench.judging.card import read_card
from cst_bench.progress import Progress, Silent
from cst_bench.record import CapabilityPart, Manifest, Scores, Usage
from cst_bench.reporting import StoredRun, read_run
from cst_bench.runs.divergence import KlBase, measure_divergences, plan_divergence
from cst_bench.runs.engine import open_engine
from cst_bench.runs.finishing import attach_cards, finish, judge_all
from cst_bench.runs.run_folder import RunFolder, open_folder
from cst_bench.runs.run_plan import Plan, PlannedCapability, PlannedCompliance, RunOptions, make_plan
from cst_bench.workfolder import LOCK, locked

if TYPE_CHECKING:
    import pandas

_WORTHWHILE = 60.0
"""Seconds that a run must take, as a rough guess, to be estimated: measuring takes a few."""
NO_LIKELIHOODS = "an API model gives no log-likelihoods"


@dataclass(frozen=True)
class RunResult:
    """A run and its results."""

    run: StoredRun
    was_finished: bool
    """The folder held this run, finished: nothing was done."""

    @property
    def folder(self) -> Path:
        """Return the run folder."""
        return self.run.folder

    @property
    def scores(self) -> Scores:
        """Return the content of `scores.json`."""
        return self.run.scores

    def to_frame(self) -> pandas.DataFrame:
        """Return the scores, one row per score; scores and intervals are shares in 0 to 1."""
        return self.run.to_frame()

    def _repr_markdown_(self) -> str:
        return self.run._repr_markdown_()


def run(options: RunOptions, progress: Progress | None = None) -> RunResult:
    """Evaluate one checkpoint on one suite, into a run folder.

    The same call on the folder of a killed run continues it, repeats no finished response and no finished capability
    task, and ends with the same `scores.json` and `report.md`.

    Raises:
        UserError: an option is wrong, or the folder holds a run with other settings.
        Interrupted: an API failed for some responses; the same call retries those.
    """
    progress = progress or Silent()
    plan = make_plan(options)
    if options.judge_card is not None:
        read_card(options.judge_card)  # a faulty one is refused before any model time
    if options.engine.on_server and not plan.compliance:
        raise UserError("--generate-with and --generate-url generate responses, which no task of this run asks for")
    model = EvaluatedModel(options.checkpoint, progress, options.engine)
    path = options.out or Path("runs") / f"{slug(model.label)}-{slug(plan.suite.name)}"
    kl_base = None if options.kl_base is None else plan_divergence(options.kl_base, model, plan)
    divergence = None if kl_base is None else kl_base.settings
    settings = plan.settings(model.identity, options.checkpoint.device, divergence, options.engine.settings)
    if plan.compliance:
        require_log_path(path)
    if (path / Manifest.FILE_NAME).is_file() and open_folder(path, settings).finished:
        return RunResult(read_run(path), True)  # without a lock, which a folder that is only read need not take
    existed = path.exists()
    with locked(path):
        try:
            folder = open_folder(path, settings)
            if folder.finished:
                return RunResult(read_run(path), True)
            model.pass_gate()
            model.limit_threads()
            if _needs_server(folder, plan):
                open_engine(folder, plan.compliance, model, progress)
        except BaseException:
            model.close()
            if not existed:
                _remove_empty(path)
            raise
        for note in plan.notes:
            progress.note(note)
        try:
            if not isinstance(progress, Silent) and not model.on_server:
                _note_estimate(folder, plan, model, progress)
            return _fill(folder, plan, model, kl_base, options, progress)
        finally:
            model.close()


def _fill(
    folder: RunFolder,
    plan: Plan,
    model: EvaluatedModel,
    kl_base: KlBase | None,
    options: RunOptions,
    progress: Progress,
) -> RunResult:
    """Do everything that needs the checkpoint first, so that a judge that fails costs none of it."""
    for task in plan.compliance:
        _generate(folder, task, model, progress)
    if not _scores_on_server(folder):
        model.close_engine()
    reasons = {
        name: reason
        for name, reason in (
            (task.spec.name, _capability(folder, task, model, plan, progress)) for task in plan.capabilities
        )
        if reason is not None
    }
    model.close_engine()
    if kl_base is not None:
        measure_divergences(folder, kl_base, model, progress)
    judges = {task.spec.name: task.judge.judge for task in plan.compliance}
    outcomes = judge_all(folder, judges, progress)
    attach_cards(folder, options.judge_card, progress)
    return RunResult(finish(folder, outcomes, show_text=options.show_text, reasons=reasons), False)


def _scores_on_server(folder: RunFolder) -> bool:
    """Return whether a server scores the capabilities of a run."""
    engine = folder.settings.engine
    return engine is not None and engine.capabilities


def _needs_server(folder: RunFolder, plan: Plan) -> bool:
    """Return whether a server has something left to do."""
    if folder.settings.engine is None:
        return False
    scored = (capabilities.load(folder.path / "capabilities", task.spec.name) for task in plan.capabilities)
    return not all(folder.has_responses(task.spec.name) for task in plan.compliance) or (
        _scores_on_server(folder) and any(result is None for result in scored)
    )


def _note_estimate(folder: RunFolder, plan: Plan, model: EvaluatedModel, progress: Progress) -> None:
    """Report what the run, or the rest of it, costs; not for a small one, of which measuring would be a large part."""
    from cst_bench.runs.estimate import estimate_run, rough_seconds  # not where `runs` is imported: it loads torch

    if model.files is not None and rough_seconds(plan, model) < _WORTHWHILE:
        return
    try:
        estimate = estimate_run(plan, model, folder)
    except RuntimeError as error:  # a model that decodes otherwise, or memory that is short: the run may do without
        progress.note(f"no estimate of time and memory ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
        return
    for line in estimate.lines:
        progress.note(line)


def _generate(folder: RunFolder, task: PlannedCompliance, model: EvaluatedModel, progress: Progress) -> None:
    """Generate all responses of a task into logs, unless they are there; a log that was deleted is made again."""
    name = task.spec.name
    if folder.has_responses(name):
        return
    from cst_bench.compliance.inspect_task import build_task, count_responses, log_parts
    from cst_bench.compliance.logs import ResponsesFailed, generate, usage
    from cst_bench.runs.estimate import response_settings

    settings = response_settings(task, folder.settings.seed or 0, model)
    responses = count_responses(task.spec, task.prompts, settings)
    parts = log_parts(task.spec, task.prompts, settings)
    inspect_model = model.inspect_model()
    started = time.monotonic()
    with progress.stage(f"{task.spec.title}: responses", responses) as count:
        logs: list[Path] = []
        failed: list[ResponsesFailed] = []
        for number, part in enumerate(parts, 1):
            place = folder.path / "compliance" / name
            if len(parts) > 1:
                place /= f"part-{number:0{len(str(len(parts)))}}"
            built = build_task(task.spec, part, task.judge.judge, settings)
            try:
                logs.append(generate(built, inspect_model, place, count))
            except ResponsesFailed as error:
                if error.gave_up:
                    raise
                failed.append(error)
    if failed:
        raise failed[0]
    fallback = model.decoding_fallback
    reported = {part.fallback for part in folder.manifest.status.compliance.values()}
    folder.set_compliance(
        name,
        state="generated",
        logs=[str(log.relative_to(folder.path.resolve())) for log in logs],
        seconds=round(time.monotonic() - started, 1),
        responses=responses,
        usage=Usage.total([usage(log) for log in logs]),
        fallback=fallback,
    )
    if fallback not in {None, *reported}:
        progress.note(f"{task.spec.title}: {fallback}")


def _capability(
    folder: RunFolder, task: PlannedCapability, model: EvaluatedModel, plan: Plan, progress: Progress
) -> str | None:
    """Score a capability task, unless it is done; return the reason if that is not possible."""
    target = folder.path / "capabilities"
    name = task.spec.name
    if capabilities.load(target, name) is not None:
        return None
    scorer = model.engine if _scores_on_server(folder) else model.checkpoint
    if scorer is None:
        folder.set_capability(name, CapabilityPart(state="unavailable", reason=NO_LIKELIHOODS))
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
            scorer,
            task.spec,
            task.path,
            data=task.data,
            limit=plan.limit,
            documents=task.documents,
            trust_code=task.trust_code,
            progress=percent,
        )
    capabilities.save(result, target)
    seconds = round(time.monotonic() - started, 1)
    reported = {part.fallback for part in folder.manifest.status.capabilities.values()}
    part = CapabilityPart(state="done", seconds=seconds, kernel=result.kernel, fallback=result.fallback)
    folder.set_capability(name, part)
    if result.fallback not in {None, *reported}:
        progress.note(f"{task.spec.title}: scored with lm-eval's stock method, which is slower: {result.fallback}")
    return None


def _remove_empty(path: Path) -> None:
    """Remove a folder that holds nothing but what this call put there before the fault."""
    for name in (LOCK, "run.json"):
        (path / name).unlink(missing_ok=True)
    path.rmdir()
