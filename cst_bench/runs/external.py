"""Scores generations made elsewhere: a file with prompt, response and system prompt, and perhaps labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench import content
from cst_bench.calibration.labels import RELEASED_VALUES
from cst_bench.columns import Columns
from cst_bench.compliance.compliance_task import FOLDER, ComplianceTask, check_judge, load_task
from cst_bench.compliance.scores import Outcome
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, digest, prompt_hash, text_column, write_json
from cst_bench.judging import NEITHER, Case, JudgeOptions, ask, find_judge, judge_name, load_judge
from cst_bench.judging.card import card_summary, find_card, read_card
from cst_bench.progress import Progress, Silent
from cst_bench.reporting import write_report
from cst_bench.runs.outcomes import write_outcomes
from cst_bench.runs.run_folder import PACKAGES, locked, open_folder, package_versions
from cst_bench.runs.run_plan import judge_settings
from cst_bench.runs.scoring import make_scores
from cst_bench.table_files import read_any

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction"),
    "response": ("response", "generation", "completion", "output", "answer"),
    "system": ("system", "system_prompt"),
    "configuration": ("configuration",),
    "label": ("label", "behaviour", "score_response"),
}
"""What each column may be called; the first that is there is taken."""


@dataclass(frozen=True)
class ScoreOptions:
    """What the user asks for. The names are those of the command line."""

    file: Path
    task: str | None = None
    """The task whose configurations ask; the one whose system prompts the file has if None."""
    judge: str | None = None
    """A judge; the labels that the file carries, or the task's own judge where it carries none, if None."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    judge_card: Path | None = None
    min_judge_f1: float = 0.9
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column, where it isn't one of the usual names."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Behaviour that a label's value means."""
    labelled_by: str = "unknown"
    """Who labelled, for files that carry labels."""
    out: Path | None = None
    """Run folder to make; nothing is written if None."""


@dataclass(frozen=True)
class Generation:
    """One row: what was asked, under which configuration, what came, and what somebody says that it shows."""

    where: str
    prompt: str
    response: str
    configuration: str
    label: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True)
class ScoreResult:
    """The scores, and the folder they were written to."""

    scores: dict[str, Any]
    folder: Path | None


def score_file(options: ScoreOptions, progress: Progress | None = None) -> ScoreResult:
    """Scores the generations of a file with a judge or with the labels they carry.

    Prompts that are not the same under all configurations are said to be unpaired; joint compliance is over those that
    are.

    Raises:
        UserError: the file can't be read, a column is missing, a row is of no configuration of the task, a prompt comes
            twice under one, or the judge can't judge the task.
        JudgeUnavailable: some verdicts could not be had; those that were had are cached.
    """
    progress = progress or Silent()
    if options.out is not None and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out} holds files: give an empty folder with --out")
    rows = read_any(options.file)
    columns = Columns(COLUMNS, options.columns)
    task, path = _task(options, rows, columns)
    found = _generations(rows, task, options, columns)
    labelled = [one for one in found if one.label is not None]
    if options.judge is None and labelled:
        judge, behaviours, reasons = _labels(options, found), [one.label for one in found], ["no label"] * len(found)
        calibration = None
    else:
        source = find_judge(options.judge) if options.judge else find_judge(task.judge, beside=path)
        asked = load_judge(str(source), options=options.judge_options)
        check_judge(asked, task.name, task.asked.values(), found[0].fields)
        with progress.stage(f"{options.file.name}: verdicts", len(found)) as count:
            cases = [Case(one.prompt, one.response, dict(one.fields)) for one in found]
            verdicts = ask(asked, cases, count)
        judge = judge_settings(asked, judge_name(source))
        behaviours = [verdict.behaviour for verdict in verdicts]
        reasons = [str(verdict.reason) for verdict in verdicts]
        card = read_card(options.judge_card) if options.judge_card else find_card(asked.identity, source)
        calibration = None if card is None else card_summary(card)
    outcomes = [
        Outcome(prompt_hash(one.prompt), one.configuration, task.asked[one.configuration], behaviour, reason)
        for one, behaviour, reason in zip(found, behaviours, reasons, strict=True)
    ]
    settings = _settings(options, task, judge, found)
    scores = make_scores(settings, {task.name: outcomes}, {task.name: calibration}, {})
    scores["remarks"] = _pairing(scores["compliance"][task.name], found)
    if options.out is not None:
        with locked(options.out):
            folder = open_folder(options.out, settings)
            write_outcomes(options.out, {task.name: outcomes}, {})
            write_json(options.out / "scores.json", scores)
            write_report(options.out, scores, settings, {}, show_text=False)
            folder.finish()
    return ScoreResult(scores, options.out)


def _task(options: ScoreOptions, rows: Sequence[Row], columns: Columns) -> tuple[ComplianceTask, Path]:
    """The task that is named, or the only one that knows all system prompts of the file."""
    if options.task is not None:
        return load_task(options.task)
    column = columns.find(rows[0], "system")
    if column is None:
        raise UserError(f"{options.file}: has no system prompts to know the task by: name it with --task")
    systems = {text_column(row, column) for row in rows}
    fitting = []
    for name in content.names(FOLDER):
        task, path = load_task(name)
        known = {
            wording.system
            for configuration in task.configurations.values()
            for wording in configuration.wordings.values()
        }
        if systems <= known:
            fitting.append((task, path))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(task.name for task, _ in fitting)
        raise UserError(
            f"{options.file}: its system prompts are those of several tasks ({names}): name one with --task"
        )
    raise UserError(f"{options.file}: its {len(systems)} system prompts are no task's: name the task with --task")


def _generations(
    rows: Sequence[Row], task: ComplianceTask, options: ScoreOptions, columns: Columns
) -> list[Generation]:
    found = []
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        prompt = text_column(row, columns.need(row, "prompt"))
        configuration = _configuration(row, task, columns)
        key = (prompt_hash(prompt), configuration)
        if key in seen:
            raise UserError(
                f"{row.where}: the prompt of {seen[key]} again under {configuration}: score one model and one sample "
                "a prompt at a time"
            )
        seen[key] = row.where.rpartition(", ")[2]
        response = row.values[columns.need(row, "response")]
        if not isinstance(response, str):
            raise UserError(f"{row.where}: the response must be text, not {type(response).__name__}")
        fields = {name: text_column(row, name) for name in task.data.fields if name in row.values}
        found.append(
            Generation(row.where, prompt, response, configuration, _label(row, task, options, columns), fields)
        )
    return found


def _configuration(row: Row, task: ComplianceTask, columns: Columns) -> str:
    column = columns.find(row, "configuration")
    if column is not None:
        name = text_column(row, column)
        if name not in task.configurations:
            raise UserError(
                f"{row.where}: task {task.name} has no configuration {name!r}: "
                f"{did_you_mean(name, task.configurations)}"
            )
        return name
    system = text_column(row, columns.need(row, "system"))
    for name, configuration in task.configurations.items():
        texts = {wording.system for wording in configuration.wordings.values()} | set(configuration.paraphrases)
        if system in texts:
            return name
    personas = [name for name, one in task.configurations.items() if one.system_column is not None]
    if len(personas) == 1:
        return personas[0]
    raise UserError(
        f"{row.where}: its system prompt ({system[:60]!r}) is in no wording of task {task.name}: "
        f"add a column configuration with {', '.join(task.configurations)}"
    )


def _label(row: Row, task: ComplianceTask, options: ScoreOptions, columns: Columns) -> str | None:
    column = columns.find(row, "label")
    if column is None or row.values[column] in (None, ""):
        return None
    value = str(row.values[column])
    meaning = {**(RELEASED_VALUES if column == "score_response" else {}), **options.values}.get(value, value)
    known = (*sorted(set(task.asked.values())), NEITHER)
    if meaning not in known:
        raise UserError(
            f"{row.where}: label {value!r} is no behaviour of task {task.name} ({', '.join(known)}): "
            f"say what it means with --value {value}=BEHAVIOUR"
        )
    return meaning


def _labels(options: ScoreOptions, found: Sequence[Generation]) -> dict[str, Any]:
    """The labels of a file, described as a judge is."""
    labels = [[prompt_hash(one.prompt), one.configuration, one.label] for one in found]
    released = options.labelled_by == "unknown" and options.file.suffix == ".md"
    by = "gpt-4" if released else options.labelled_by
    return {
        "name": f"labels by {by}",
        "version": 1,
        "kind": "labels",
        "sha256": digest(labels),
        "source": options.file.name,
    }


def _settings(
    options: ScoreOptions, task: ComplianceTask, judge: Mapping[str, Any], found: Sequence[Generation]
) -> dict[str, Any]:
    """What a run's manifest would say, as far as a file tells it."""
    data = digest([[one.prompt, one.response, one.configuration] for one in found])
    return {
        "checkpoint": {"label": options.file.stem, "kind": "file", "sha256": data},
        "suite": {"name": task.name, "version": task.version, "title": task.title},
        "average": list(task.configurations),
        "compliance": {
            task.name: {
                "title": task.title,
                "version": task.version,
                "sha256": digest(task.model_dump(mode="json")),
                "configurations": task.asked,
                "fields": task.data.fields,
                "wording": "the file's own",
                "data": options.file.name,
                "data_sha256": data,
                "prompts": len({one.prompt for one in found}),
                "judge": dict(judge),
                "generation": None,
            }
        },
        "capabilities": {},
        "split": "test",
        "limit": None,
        "seed": None,
        "min_judge_f1": options.min_judge_f1,
        "packages": package_versions(PACKAGES),
    }


def _pairing(scores: dict[str, Any], found: Sequence[Generation]) -> list[str]:
    """Says how far the configurations were asked the same prompts, and takes back a joint score that means nothing."""
    arms = {name: {prompt_hash(one.prompt) for one in found if one.configuration == name} for name in scores}
    arms = {name: prompts for name, prompts in arms.items() if prompts}
    if len(arms) < 2 or len(set(map(frozenset, arms.values()))) == 1:
        return []
    common = len(set.intersection(*arms.values()))
    sizes = ", ".join(f"{name} {len(prompts)}" for name, prompts in arms.items())
    if common:
        scores["joint"]["unscored"] -= len(set.union(*arms.values())) - common  # never asked, and not failed to score
        return [f"Not the same prompts under every configuration ({sizes}; {common} in common): joint is over those."]
    del scores["joint"]
    return [
        f"The configurations were asked different prompts ({sizes}; none in common): the scores are not paired, and "
        "there is no joint compliance."
    ]
