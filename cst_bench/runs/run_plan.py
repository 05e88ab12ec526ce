"""What a run will do, decided and checked before any model time: tasks, prompts, judges, data, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench import content
from cst_bench.capabilities import CapabilityTask, load_capability
from cst_bench.checkpoint import CheckpointOptions
from cst_bench.compliance.compliance_task import FOLDER as COMPLIANCE
from cst_bench.compliance.compliance_task import ComplianceTask, check_judge, load_task
from cst_bench.compliance.data import PromptSet, load_prompts
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import digest, file_digest
from cst_bench.judging import Judge, JudgeOptions, find_judge, judge_name, load_judge
from cst_bench.runs.suite import Suite, load_suite

CAPABILITIES = "tasks/capabilities"
DEFAULT_SUITE = "tiny"


@dataclass(frozen=True)
class RunOptions:
    """What the user asks for. The names are those of the command line."""

    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    suite: str | None = None
    """Name or path; the tiny suite if neither suite nor tasks are given."""
    tasks: tuple[str, ...] = ()
    """Run only these tasks, of either kind, in place of a suite's."""
    judges: tuple[str, ...] = ()
    """Judges in place of the tasks' own: each task takes the first that can judge it, and keeps its own if none can."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    judge_card: Path | None = None
    """A calibration card to attach, in place of the one that is found by the judge's hash."""
    min_judge_f1: float = 0.9
    """Below this macro F1 a judge counts as uncalibrated."""
    wording: str | None = None
    """For the tasks that have it; the others keep their default."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Local data for a task, by its name."""
    split: str = "test"
    """Which prompts of the compliance tasks: `test` to report, `validation` to choose by."""
    limit: int | None = None
    """Use only the first so many prompts of each compliance task and documents of each capability task."""
    seed: int = 0
    out: Path | None = None
    show_text: bool = False
    """Put prompts and responses into the report."""


@dataclass(frozen=True)
class PlannedCompliance:
    """A compliance task with all that it needs."""

    spec: ComplianceTask
    prompts: PromptSet
    wording: str
    judge: Judge
    judge_source: str
    """Name of the judge, or path to its file."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides this task's results."""
        return {
            "title": self.spec.title,
            "version": self.spec.version,
            "sha256": digest(self.spec.model_dump(mode="json")),
            "configurations": self.spec.asked,
            "fields": self.spec.data.fields,
            "wording": self.wording,
            "data": self.prompts.origin,
            "data_sha256": self.prompts.sha256,
            "prompts": len(self.prompts.prompts),
            "judge": judge_settings(self.judge, self.judge_source),
            "generation": self.spec.generation.model_dump(),
        }


@dataclass(frozen=True)
class PlannedCapability:
    """A capability task, the file it stands in, and the local data that it is to use, if any."""

    spec: CapabilityTask
    path: Path
    data: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides this task's results."""
        own = self.spec.definitions_folder(self.path) if self.spec.definitions is not None else None
        return {
            "title": self.spec.title,
            "version": self.spec.version,
            "sha256": digest(self.spec.model_dump(mode="json")),
            "definitions_sha256": _folder_digest(own),
            "data_sha256": _folder_digest(self.data),
        }


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, save the checkpoint's part."""

    suite: Suite
    compliance: list[PlannedCompliance]
    capabilities: list[PlannedCapability]
    split: str
    limit: int | None
    seed: int
    min_judge_f1: float

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results; two runs with the same settings and checkpoint may share a folder."""
        return {
            "suite": {"name": self.suite.name, "version": self.suite.version, "title": self.suite.title},
            "average": self.suite.average,
            "compliance": {task.spec.name: task.settings for task in self.compliance},
            "capabilities": {task.spec.name: task.settings for task in self.capabilities},
            "split": self.split,
            "limit": self.limit,
            "seed": self.seed,
            "min_judge_f1": self.min_judge_f1,
        }


def make_plan(options: RunOptions) -> Plan:
    """Resolves names, reads prompts and judges, and finds whatever is wrong with them.

    Raises:
        UserError: unknown suite, task, wording or judge; bad data; `limit` below 1; data for a task that isn't run.
    """
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit must be at least 1, not {options.limit}")
    suite = _suite(options)
    named = NamedJudges(options.judges, options.judge_options)
    compliance = [_compliance(name, options, named) for name in suite.compliance]
    named.require_all_used()
    capabilities = [_capability(name, options) for name in suite.capabilities]
    names = [*(task.spec.name for task in compliance), *(task.spec.name for task in capabilities)]
    for name in options.data:
        if name not in names:
            raise UserError(f"--data {name}=…: no such task in this run: {did_you_mean(name, names)}")
    wordings = {wording for task in compliance for wording in task.spec.known_wordings()}
    if options.wording is not None and options.wording not in wordings:
        raise UserError(
            f"no task of this run has the wording {options.wording!r}: {did_you_mean(options.wording, wordings)}"
        )
    _check_unique(names, (c for task in compliance for c in task.spec.configurations))
    return Plan(suite, compliance, capabilities, options.split, options.limit, options.seed, options.min_judge_f1)


class NamedJudges:
    """The judges that a user names, each for the tasks whose behaviours it knows."""

    def __init__(self, names: Iterable[str], options: JudgeOptions) -> None:
        """Loads them.

        Raises:
            UserError: one can't be had.
        """
        sources = [find_judge(name) for name in names]
        self._judges = [(load_judge(str(source), options=options), judge_name(source)) for source in sources]
        self._refused: dict[str, UserError] = {}
        self._used: set[str] = set()

    def first_fitting(self, task: str, asked: Iterable[str], fields: Iterable[str]) -> tuple[Judge, str] | None:
        """The first that can judge a task, and where it comes from; None if none can."""
        asked, fields = list(asked), list(fields)
        for judge, source in self._judges:
            try:
                check_judge(judge, task, asked, fields)
            except UserError as error:
                self._refused.setdefault(source, error)
                continue
            self._used.add(source)
            return judge, source
        return None

    def require_all_used(self) -> None:
        """Sees to it that each judge that was named judges something.

        Raises:
            UserError: one judges no task.
        """
        for _, source in self._judges:
            if source not in self._used:
                raise self._refused.get(source) or UserError(f"judge {source} has no task to judge")


def judge_settings(judge: Judge, source: str) -> dict[str, Any]:
    """What a manifest says of a judge: enough to know it again, and to load it again."""
    known = {"name": judge.name, "version": judge.version, "kind": judge.kind, "sha256": judge.identity}
    return {**known, "source": source, **judge.details}


def _suite(options: RunOptions) -> Suite:
    """The suite that was named, or the tasks that were named as a suite of their own."""
    if not options.tasks:
        return load_suite(options.suite or DEFAULT_SUITE)
    base = load_suite(options.suite) if options.suite else None
    compliance: list[str] = []
    capabilities: list[str] = []
    known = [*content.names(COMPLIANCE), *content.names(CAPABILITIES)]
    for name in options.tasks:
        if name in content.names(COMPLIANCE) or "/" in name or name.endswith((".yaml", ".yml")):
            compliance.append(name)
        elif name in content.names(CAPABILITIES):
            capabilities.append(name)
        else:
            raise UserError(f"unknown task {name!r}: {did_you_mean(name, known)}")
    return Suite(
        name=base.name if base else "custom",
        version=base.version if base else 1,
        title=base.title if base else "Tasks chosen by name",
        compliance=compliance,
        capabilities=capabilities,
        average=base.average if base else ["S1", "S0", "S_RP", "S_A"],
    )


def _compliance(name: str, options: RunOptions, named: NamedJudges) -> PlannedCompliance:
    spec, path = load_task(name)
    prompts = load_prompts(spec, path, data=options.data.get(spec.name), limit=options.limit, split=options.split)
    found = named.first_fitting(spec.name, spec.asked.values(), spec.data.fields)
    if found is None:
        source = find_judge(spec.judge, beside=path)
        found = load_judge(str(source), options=options.judge_options), judge_name(source)
        check_judge(found[0], spec.name, spec.asked.values(), spec.data.fields)
    judge, source_name = found
    wording = options.wording if options.wording in spec.known_wordings() else spec.wording
    return PlannedCompliance(spec, prompts, wording, judge, source_name)


def _capability(name: str, options: RunOptions) -> PlannedCapability:
    spec, path = load_capability(name)
    data = options.data.get(spec.name)
    if data is not None and not data.is_dir():
        raise UserError(f"--data {spec.name}={data}: must be a folder that mirrors the data set on the hub")
    return PlannedCapability(spec, path, data)


def _folder_digest(folder: Path | None) -> str | None:
    """Over the files that data sets and definitions are made of; None for no folder."""
    if folder is None:
        return None
    kinds = {".yaml", ".py", ".md", ".json", ".jsonl", ".csv", ".parquet", ""}
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds]
    return digest([[str(path.relative_to(folder)), file_digest([path])] for path in sorted(files)])


def _check_unique(names: Iterable[str], configurations: Iterable[str]) -> None:
    for what, values in (("task", list(names)), ("configuration", list(configurations))):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UserError(f"{what} {twice[0]} is in this run twice: scores are named by it")
