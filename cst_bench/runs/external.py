"""Score generations made elsewhere, a table or the log of another tool, with a judge or with the file's labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from cst_bench.checkpoint.thoughts import as_think_tokens
from cst_bench.columns import Columns
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.compliance_task import REFERENCE, ComplianceTask, load_task
from cst_bench.compliance.task_judge import ChosenJudge, default_judge, supporting
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, digest_list
from cst_bench.judging import (
    Case,
    JudgeOptions,
    Verdict,
    ask,
    describe_judge,
    find_judge,
    judge_name,
    load_judge,
)
from cst_bench.judging.cache import keeping_answers
from cst_bench.judging.card import find_card, read_card
from cst_bench.judging.degenerate import repeats, was_cut_off
from cst_bench.progress import Progress, Silent
from cst_bench.record import (
    CalibrationSummary,
    CheckpointIdentity,
    ComplianceSettings,
    JudgeRecord,
    RunSettings,
    Scores,
    SuiteRecord,
    TaskScores,
)
from cst_bench.reporting import StoredRun
from cst_bench.runs.evaluate import RunResult
from cst_bench.runs.finishing import write_results
from cst_bench.runs.generations_file import (
    COLUMNS,
    ConfigurationChoice,
    ScoredGeneration,
    find_task,
    read_generations,
)
from cst_bench.runs.imports import COLUMNS as LOG_COLUMNS
from cst_bench.runs.imports import FORMATS, ImportedLog, read_log
from cst_bench.runs.run_folder import PACKAGES, finished_manifest, new_manifest, open_folder
from cst_bench.runs.run_outcomes import make_outcomes
from cst_bench.runs.scoring import make_scores
from cst_bench.table_files import iter_any
from cst_bench.workfolder import locked, package_versions


@dataclass(frozen=True)
class ScoreOptions:
    """Options of scoring a file, named as on the command line."""

    file: Path
    task: str | None = None
    """Compliance task that defines the configurations; if None, the one that has the file's system prompts."""
    format: str | None = None
    """Tool whose log the file is, or `table`; recognized by the file's content if None."""
    model: str | None = None
    """Model whose responses are scored, in a log with several."""
    configuration: str | None = None
    """Configuration that all responses were made under; if None, each row's own."""
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    """Configuration → text that is part of its system prompts in the file."""
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


def score_file(options: ScoreOptions, progress: Progress | None = None) -> RunResult:
    """Score the generations of a file with a judge or with the labels that the file has.

    Unpaired configurations (other prompts under each) are noted; joint compliance is over the prompts that all share.
    The same call continues one that was killed: verdicts of a language model are cached.

    Raises:
        UserError: the file can't be read, a column is missing, a row has no configuration of the task, a prompt comes
            twice under one configuration, the judge does not support the task, or the folder holds something else.
        JudgeUnavailable: some verdicts are missing; the others are cached.
    """
    progress = progress or Silent()
    log = _of_one_model(options, _read_log(options))
    columns = Columns(COLUMNS if log is None else LOG_COLUMNS, options.columns)
    task, path = _find_task(options, log, columns)
    choice = ConfigurationChoice(options.configuration, options.system_prompts)
    generations = read_generations(
        _rows(options, log), task, columns, options.values, as_think_tokens(options.think_tokens), choice, log
    )
    if options.judge is None and any(generation.label is not None for generation in generations):
        judge = None
        settings = _settings(options, task, _describe_labels(options, generations), generations, log)
    else:
        judge = _load_judge(options, task, path, generations)
        settings = _settings(options, task, describe_judge(judge.judge, judge.source), generations, log)
        if judge.note is not None:
            progress.note(judge.note)
    notes = (*_thoughts(generations), *_of_log(log, generations))
    with ExitStack() as stack:
        folder = None
        if options.out is not None:
            stack.enter_context(locked(options.out))
            stack.enter_context(keeping_answers(options.out))
            folder = open_folder(options.out, settings)
        outcomes, calibration = _outcomes(options, task, generations, judge, progress)
        del generations, log  # their texts take more memory than all that follows
        scores = _scores(task, settings, outcomes, calibration, notes)
        made = make_outcomes({task.name: outcomes}, {})
        if folder is not None:
            return RunResult(write_results(folder, scores, made, {}, show_text=False), False)
    manifest = finished_manifest(new_manifest(settings))
    return RunResult(StoredRun(Path(settings.checkpoint.label), manifest, scores, made), False)


def _find_task(options: ScoreOptions, log: ImportedLog | None, columns: Columns) -> tuple[ComplianceTask, Path]:
    if options.task is not None:
        return load_task(options.task)
    return find_task(options.file, _rows(options, log), columns)


def _rows(options: ScoreOptions, log: ImportedLog | None) -> Iterator[Row]:
    """Yield the rows of the file, or of the log that it is."""
    return iter_any(options.file) if log is None else (response.row for response in log.responses)


def _read_log(options: ScoreOptions) -> ImportedLog | None:
    if options.format is not None and options.format not in FORMATS:
        raise UserError(f"unknown format {options.format!r}: {did_you_mean(options.format, FORMATS)}")
    return read_log(options.file, options.format)


def _of_one_model(options: ScoreOptions, log: ImportedLog | None) -> ImportedLog | None:
    """Return the part of a log that is of the model asked for, or of the only one.

    Raises:
        UserError: the log has several models and none was chosen, or not the one that was.
    """
    if log is None:
        if options.model is not None:
            raise UserError(f"{options.file}: --model is for logs of other tools, and this file is a table")
        return None
    models = {response.model or "unknown": None for response in log.responses}
    if options.model is not None and options.model not in models:
        raise UserError(
            f"{options.file}: no response of model {options.model!r}: {did_you_mean(options.model, models)}"
        )
    if options.model is None and len(models) > 1:
        raise UserError(f"{options.file}: has responses of several models ({', '.join(models)}): give --model")
    chosen = options.model or next(iter(models))
    return replace(log, responses=[r for r in log.responses if (r.model or "unknown") == chosen])


def _load_judge(
    options: ScoreOptions, task: ComplianceTask, path: Path, generations: Sequence[ScoredGeneration]
) -> ChosenJudge:
    if options.judge is None:
        return default_judge(task, path, options.judge_options)
    source = find_judge(options.judge)
    judge = load_judge(str(source), options=options.judge_options)
    return ChosenJudge(supporting(judge, task.name, task.asked.values(), generations[0].fields), judge_name(source))


def _outcomes(
    options: ScoreOptions,
    task: ComplianceTask,
    generations: Sequence[ScoredGeneration],
    chosen: ChosenJudge | None,
    progress: Progress,
) -> tuple[list[Outcome], CalibrationSummary | None]:
    """Judge the generations, or read their labels if the judge is None; return the outcomes and the judge's card."""
    calibration = None
    if chosen is None:
        verdicts = [
            Verdict(generation.label, "no label" if generation.label is None else None) for generation in generations
        ]
    else:
        cases = [
            Case(generation.prompt, generation.response, dict(generation.fields), generation.stop_reason)
            for generation in generations
            if generation.unscored is None
        ]
        with progress.stage(f"{options.file.name}: verdicts", len(cases)) as count:
            given = iter(ask(chosen.judge, cases, count))
        verdicts = [next(given) if row.unscored is None else Verdict(None, row.unscored) for row in generations]
        card = find_card(chosen.judge.identity, find_judge(chosen.source), progress.note)
        card = read_card(options.judge_card) if options.judge_card else card
        calibration = None if card is None else card.summary()
    outcomes = [
        Outcome(
            generation.prompt_id,
            generation.configuration,
            task.asked.get(generation.configuration),
            verdict.behaviour,
            generation.missing_answer or verdict.reason,
            cut_off=was_cut_off(generation.stop_reason),
            repeated=None if chosen is None else repeats(generation.response),
            words=len(generation.response.split()),
            first=verdict.first,
            epoch=generation.epoch,
        )
        for generation, verdict in zip(generations, verdicts, strict=True)
    ]
    return outcomes, calibration


def _scores(
    task: ComplianceTask,
    settings: RunSettings,
    outcomes: Sequence[Outcome],
    calibration: CalibrationSummary | None,
    notes: Sequence[str],
) -> Scores:
    """Compute the scores; `notes` are added to the one on how far prompts are paired."""
    scores = make_scores(settings, {task.name: outcomes}, {task.name: calibration}, {})
    task_scores, of_pairing = _pairing(scores.compliance[task.name], outcomes)
    return scores.model_copy(update={"compliance": {task.name: task_scores}, "notes": (*of_pairing, *notes)})


def _describe_labels(options: ScoreOptions, generations: Sequence[ScoredGeneration]) -> JudgeRecord:
    """Describe a file's labels as a judge is described."""
    labels = digest_list([row.prompt_id, row.configuration, row.label] for row in generations)
    released = options.labelled_by == "unknown" and options.file.suffix == ".md"
    labelled_by = "gpt-4" if released else options.labelled_by
    return JudgeRecord(
        name=f"labels by {labelled_by}", version=1, kind="labels", sha256=labels, source=options.file.name
    )


def _settings(
    options: ScoreOptions,
    task: ComplianceTask,
    judge: JudgeRecord,
    generations: Sequence[ScoredGeneration],
    log: ImportedLog | None,
) -> RunSettings:
    """Return the settings of a run, as far as a file tells them."""
    model = None if log is None else log.responses[0].model
    data = digest_list([row.prompt, row.response, row.configuration] for row in generations)
    return RunSettings(
        checkpoint=CheckpointIdentity(
            label=model or options.file.stem, kind="file", think_tokens=options.think_tokens, sha256=data
        ),
        suite=SuiteRecord(name=task.name, version=task.version, title=task.title),
        average=tuple(task.configurations),
        compliance={
            task.name: ComplianceSettings(
                title=task.title,
                version=task.version,
                sha256=task.sha256,
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


def _of_log(log: ImportedLog | None, generations: Sequence[ScoredGeneration]) -> Iterator[str]:
    """Note what was read of a log, and what of it cannot be judged."""
    if log is None:
        return
    yield f"Responses read from {log.kind}: {len(generations)}."
    yield from log.notes
    reasons = Counter(generation.unscored for generation in generations if generation.unscored is not None)
    for reason, count in sorted(reasons.items()):
        yield f"Responses that are unscored because {reason}: {count}."
    several = sum(response.user_turns > 1 for response in log.responses)
    if several:
        yield f"Prompts and responses judged as the last turn of a longer conversation: {several}."


def _pairing(scores: TaskScores, outcomes: Sequence[Outcome]) -> tuple[TaskScores, tuple[str, ...]]:
    """Note how far the configurations were asked the same prompts, and drop a joint score that means nothing."""
    prompts: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.configuration == REFERENCE:
            continue
        prompts.setdefault(outcome.configuration, set()).add(outcome.prompt_id)
    if len(prompts) < 2 and len(scores.configurations) > 1:
        note = f"All responses are of configuration {next(iter(prompts))}: there is no joint compliance."
        return scores.model_copy(update={"joint": None}), (note,)
    if len(set(map(frozenset, prompts.values()))) == 1:
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
