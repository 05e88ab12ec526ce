"""Score generations made elsewhere, with a judge or with the labels that their file has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.checkpoint.thoughts import as_think_tokens
from cst_bench.columns import Columns
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.compliance_task import ComplianceTask, check_judge, load_task
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging import Case, JudgeOptions, ask, describe_judge, find_judge, judge_name, load_judge
from cst_bench.judging.card import find_card, read_card
from cst_bench.progress import Progress, Silent
from cst_bench.record import (
    CalibrationSummary,
    CheckpointIdentity,
    ComplianceSettings,
    JudgeRecord,
    RunSettings,
    SuiteRecord,
    TaskScores,
)
from cst_bench.reporting import StoredRun, write_run_report
from cst_bench.runs.evaluate import RunResult
from cst_bench.runs.generations_file import COLUMNS, ScoredGeneration, find_task, read_generations
from cst_bench.runs.run_folder import PACKAGES, new_manifest, open_folder
from cst_bench.runs.run_outcomes import make_outcomes
from cst_bench.runs.scoring import make_scores
from cst_bench.table_files import read_any
from cst_bench.workfolder import locked, package_versions


@dataclass(frozen=True)
class ScoreOptions:
    """Options of scoring a file, named as on the command line."""

    file: Path
    task: str | None = None
    """Compliance task that defines the configurations; if None, the one that has the file's system prompts."""
    judge: str | None = None
    """Judge to use; if None, the file's labels, or the task's judge for a file without labels."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    judge_card: Path | None = None
    """Calibration card to use instead of the one found by the judge's hash."""
    min_judge_f1: float = 0.9
    """Minimum macro F1 of a calibrated judge."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the file, where it is not one of the usual names."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Label of the file → behaviour."""
    labelled_by: str = "unknown"
    """Who labelled, for files with labels."""
    think_tokens: tuple[str, str] | None = None
    """Markers of thoughts to remove from the responses before they are judged; nothing is removed if None."""
    out: Path | None = None
    """Run folder to make; nothing is written if None."""


@dataclass(frozen=True)
class _Judged:
    """Verdicts on the generations, in their order."""

    judge: JudgeRecord
    behaviours: Sequence[str | None]
    reasons: Sequence[str]
    calibration: CalibrationSummary | None


def score_file(options: ScoreOptions, progress: Progress | None = None) -> RunResult:
    """Score the generations of a file with a judge or with the labels that the file has.

    Unpaired configurations (other prompts under each) are noted; joint compliance is over the prompts that all share.

    Raises:
        UserError: the file can't be read, a column is missing, a row has no configuration of the task, a prompt comes
            twice under one configuration, or the judge does not support the task.
        JudgeUnavailable: some verdicts are missing; the others are cached.
    """
    progress = progress or Silent()
    if options.out is not None and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out} holds files: give an empty folder with --out")
    rows = read_any(options.file)
    columns = Columns(COLUMNS, options.columns)
    task, path = find_task(options.file, rows, columns) if options.task is None else load_task(options.task)
    generations = read_generations(rows, task, columns, options.values, as_think_tokens(options.think_tokens))
    if options.judge is None and any(generation.label is not None for generation in generations):
        judged = _judged_by_labels(options, generations)
    else:
        judged = _judged_by_judge(options, task, path, generations, progress)
    outcomes = [
        Outcome(generation.prompt_id, generation.configuration, task.asked[generation.configuration], behaviour, reason)
        for generation, behaviour, reason in zip(generations, judged.behaviours, judged.reasons, strict=True)
    ]
    settings = _settings(options, task, judged.judge, generations)
    scores = make_scores(settings, {task.name: outcomes}, {task.name: judged.calibration}, {})
    task_scores, notes = _pairing(scores.compliance[task.name], generations)
    notes = (*notes, *_thoughts(generations))
    scores = scores.model_copy(update={"compliance": {task.name: task_scores}, "notes": notes})
    record = make_outcomes({task.name: outcomes}, {})
    if options.out is None:
        return RunResult(StoredRun(Path(options.file.stem), new_manifest(settings), scores, record), False)
    with locked(options.out):
        folder = open_folder(options.out, settings)
        record.write(folder.path)
        scores.write(folder.path)
        run = StoredRun(folder.path, folder.manifest, scores, record)
        write_run_report(run, {}, show_text=False)
        folder.finish()
    return RunResult(run, False)


def _judged_by_judge(
    options: ScoreOptions,
    task: ComplianceTask,
    path: Path,
    generations: Sequence[ScoredGeneration],
    progress: Progress,
) -> _Judged:
    source = find_judge(options.judge) if options.judge else find_judge(task.judge, beside=path)
    judge = load_judge(str(source), options=options.judge_options)
    check_judge(judge, task.name, task.asked.values(), generations[0].fields)
    cases = [Case(generation.prompt, generation.response, dict(generation.fields)) for generation in generations]
    with progress.stage(f"{options.file.name}: verdicts", len(cases)) as count:
        verdicts = ask(judge, cases, count)
    card = read_card(options.judge_card) if options.judge_card else find_card(judge.identity, source)
    return _Judged(
        describe_judge(judge, judge_name(source)),
        [verdict.behaviour for verdict in verdicts],
        [generation.missing_answer or str(verdict.reason) for generation, verdict in zip(generations, verdicts)],
        None if card is None else card.summary(),
    )


def _judged_by_labels(options: ScoreOptions, generations: Sequence[ScoredGeneration]) -> _Judged:
    """Take a file's labels as verdicts, described as a judge is."""
    labels = [[generation.prompt_id, generation.configuration, generation.label] for generation in generations]
    released = options.labelled_by == "unknown" and options.file.suffix == ".md"
    labelled_by = "gpt-4" if released else options.labelled_by
    judge = JudgeRecord(
        name=f"labels by {labelled_by}", version=1, kind="labels", sha256=digest(labels), source=options.file.name
    )
    behaviours = [generation.label for generation in generations]
    return _Judged(judge, behaviours, ["no label"] * len(generations), None)


def _settings(
    options: ScoreOptions, task: ComplianceTask, judge: JudgeRecord, generations: Sequence[ScoredGeneration]
) -> RunSettings:
    """Return the settings of a run, as far as a file tells them."""
    data = digest([[row.prompt, row.response, row.configuration] for row in generations])
    return RunSettings(
        checkpoint=CheckpointIdentity(
            label=options.file.stem, kind="file", think_tokens=options.think_tokens, sha256=data
        ),
        suite=SuiteRecord(name=task.name, version=task.version, title=task.title),
        average=tuple(task.configurations),
        compliance={
            task.name: ComplianceSettings(
                title=task.title,
                version=task.version,
                sha256=digest(task.model_dump(mode="json")),
                configurations=task.asked,
                fields=tuple(task.data.fields),
                wording="the file's own",
                data=options.file.name,
                data_sha256=data,
                prompts=len({generation.prompt for generation in generations}),
                judge=judge,
                generation=None,
            )
        },
        capabilities={},
        min_judge_f1=options.min_judge_f1,
        packages=package_versions(PACKAGES),
    )


def _thoughts(generations: Sequence[ScoredGeneration]) -> Iterator[str]:
    """Note how many thoughts were removed."""
    thoughts = sum(generation.thought for generation in generations)
    missing = sum(generation.missing_answer is not None for generation in generations)
    if thoughts:
        end = f"; {missing} of them {'has' if missing == 1 else 'have'} no answer" if missing else ""
        yield f"Thoughts were removed from {thoughts} of {len(generations)} responses before judging{end}."


def _pairing(scores: TaskScores, generations: Sequence[ScoredGeneration]) -> tuple[TaskScores, tuple[str, ...]]:
    """Note how far the configurations were asked the same prompts, and drop a joint score that means nothing."""
    prompts: dict[str, set[str]] = {}
    for generation in generations:
        prompts.setdefault(generation.configuration, set()).add(generation.prompt_id)
    if len(prompts) < 2 or len(set(map(frozenset, prompts.values()))) == 1:
        return scores, ()
    common = len(set.intersection(*prompts.values()))
    ordered = {name: prompts[name] for name in scores.configurations if name in prompts}
    sizes = ", ".join(f"{name} {len(ids)}" for name, ids in ordered.items())
    if common and scores.joint is not None:
        never_asked = len(set.union(*prompts.values())) - common  # not to be counted as unscored
        joint = scores.joint.model_copy(update={"unscored": scores.joint.unscored - never_asked})
        note = f"Not the same prompts under every configuration ({sizes}; {common} in common): joint is over those."
        return scores.model_copy(update={"joint": joint}), (note,)
    note = (
        f"The configurations were asked different prompts ({sizes}; none in common): the scores are not paired, and "
        "there is no joint compliance."
    )
    return scores.model_copy(update={"joint": None}), (note,)
