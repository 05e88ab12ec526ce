"""The plan of a run, resolved and checked before any model time: tasks, prompts, judges, data, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench import content
from cst_bench.capabilities import SOFTMAX_DTYPE, CapabilityTask, load_capability, require_no_code
from cst_bench.checkpoint import CheckpointOptions, EngineOptions
from cst_bench.compliance.compliance_task import (
    ALL_WORDINGS,
    ComplianceTask,
    GenerationSettings,
    choose_wordings,
    load_task,
)
from cst_bench.compliance.compliance_task import FOLDER as COMPLIANCE
from cst_bench.compliance.data import PromptSet, load_prompts
from cst_bench.compliance.task_judge import ChosenJudge, default_judge, supporting
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import digest, file_digest
from cst_bench.judging import JudgeOptions, describe_judge, find_judge, judge_name, load_judge
from cst_bench.record import (
    CapabilitySettings,
    CheckpointIdentity,
    ComplianceSettings,
    DivergenceSettings,
    EngineSettings,
    GenerationRecord,
    RunSettings,
    SuiteRecord,
)
from cst_bench.runs.local_data import local_data
from cst_bench.runs.run_folder import PACKAGES
from cst_bench.runs.suite import Suite, load_suite
from cst_bench.workfolder import package_versions

CAPABILITIES = "tasks/capabilities"
DEFAULT_SUITE = "tiny"


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, named as on the command line."""

    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    suite: str | None = None
    """Name or path; the tiny suite if neither suite nor tasks are given."""
    tasks: tuple[str, ...] = ()
    """Tasks of either kind to run instead of a suite's."""
    judges: tuple[str, ...] = ()
    """Judges to use instead of the tasks' default: each task takes the first that supports it, else its default."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    judge_card: Path | None = None
    """Calibration card to use instead of the one chosen by the judge's hash."""
    min_judge_f1: float = 0.9
    """Minimum macro F1 of a calibrated judge."""
    wordings: tuple[str, ...] = ()
    """Wordings of the system prompts, for the tasks that have them; `all` for a task's unseen ones."""
    samples: int = 1
    """Number of responses to each prompt under each configuration and wording."""
    temperature: float | None = None
    """Sampling temperature; each task's own if None."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Task → local data."""
    data_dir: Path | None = None
    """Folder of the tasks' local data, by name."""
    split: str = "test"
    """Split of the compliance tasks to evaluate; use `validation` for model selection."""
    limit: int | None = None
    """Limit to the first N prompts of each compliance task and documents of each capability task."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Capability task → number of random documents of each (sub)task, instead of its limit."""
    trust_task_code: bool = False
    """Run Python functions that the lm-eval definitions of a user's task file name."""
    reference: bool = True
    """Answer each prompt with no system prompt, too: described in reports, never scored."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Server that generates the responses; in process by default."""
    seed: int = 0
    kl_base: str | None = None
    """Base that the KL divergence is measured from: a checkpoint, or `auto` for the one that the checkpoint was trained
    on; not measured if None."""
    out: Path | None = None
    show_text: bool = False
    """Show prompts and responses in the report."""


@dataclass(frozen=True)
class PlannedCompliance:
    """A compliance task with its prompts, wording and judge."""

    spec: ComplianceTask
    prompts: PromptSet
    wordings: tuple[str, ...]
    generation: GenerationSettings
    samples: int
    reference: bool
    judge: ChosenJudge

    @property
    def settings(self) -> ComplianceSettings:
        """Return what decides this task's results."""
        return ComplianceSettings(
            title=self.spec.title,
            version=self.spec.version,
            sha256=self.spec.sha256,
            configurations=self.spec.asked,
            fields=tuple(self.spec.data.fields),
            wording=", ".join(self.wordings),
            wordings=self.wordings if len(self.wordings) > 1 else (),
            data=self.prompts.origin,
            data_sha256=self.prompts.sha256,
            prompts=len(self.prompts.prompts),
            judge=describe_judge(self.judge.judge, self.judge.source),
            generation=GenerationRecord(**self.generation.model_dump(), samples=self.samples),
            reference=self.reference,
        )


@dataclass(frozen=True)
class PlannedCapability:
    """A capability task, its file, and local data to use instead of its data set."""

    spec: CapabilityTask
    path: Path
    data: Path | None
    documents: int | None
    """Number of random documents of each (sub)task."""
    trust_code: bool
    """Run Python functions that its definitions name."""

    @property
    def settings(self) -> CapabilitySettings:
        """Return what decides this task's results."""
        definitions = self.spec.definitions_folder(self.path) if self.spec.definitions is not None else None
        return CapabilitySettings(
            title=self.spec.title,
            version=self.spec.version,
            sha256=digest(self.spec.model_dump(mode="json", exclude={"local_names"})),
            definitions_sha256=_folder_digest(definitions),
            data_sha256=_folder_digest(self.data),
            softmax_dtype=SOFTMAX_DTYPE,
            documents=self.documents,
        )


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do, apart from the checkpoint."""

    suite: Suite
    compliance: list[PlannedCompliance]
    capabilities: list[PlannedCapability]
    split: str
    limit: int | None
    seed: int
    min_judge_f1: float

    @property
    def notes(self) -> list[str]:
        """Return why tasks have another judge than their own."""
        return [task.judge.note for task in self.compliance if task.judge.note is not None]

    def settings(
        self,
        checkpoint: CheckpointIdentity,
        device: str | None,
        divergence: DivergenceSettings | None = None,
        engine: EngineSettings | None = None,
    ) -> RunSettings:
        """Return everything that decides the results of this plan with a checkpoint."""
        capabilities = {task.spec.name: task.settings for task in self.capabilities}
        if engine is not None and engine.capabilities:  # whose softmax is the server's
            unknown = {"softmax_dtype": None}
            capabilities = {name: task.model_copy(update=unknown) for name, task in capabilities.items()}
        return RunSettings(
            checkpoint=checkpoint,
            device=device,
            engine=engine,
            suite=SuiteRecord(name=self.suite.name, version=self.suite.version, title=self.suite.title),
            average=tuple(self.suite.average),
            compliance={task.spec.name: task.settings for task in self.compliance},
            capabilities=capabilities,
            divergence=divergence,
            split=self.split,
            limit=self.limit,
            seed=self.seed,
            min_judge_f1=self.min_judge_f1,
            packages=package_versions(PACKAGES),
        )


def make_plan(options: RunOptions) -> Plan:
    """Resolve names, read prompts and load judges, and check them.

    Raises:
        UserError: unknown suite, task, wording or judge; bad data; `limit` below 1; data for a task that isn't run.
    """
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit must be at least 1, not {options.limit}")
    if options.samples < 1:
        raise UserError(f"--samples must be at least 1, not {options.samples}")
    if options.temperature is not None and options.temperature < 0:
        raise UserError(f"--temperature must be at least 0, not {options.temperature}")
    for task, count in options.documents.items():
        if count < 1:
            raise UserError(f"--documents {task}={count}: must be at least 1")
    suite = _suite(options)
    named = NamedJudges(options.judges, options.judge_options)
    tasks = [load_task(name) for name in suite.compliance]
    abilities = [load_capability(name) for name in suite.capabilities]
    names = [*(spec.name for spec, _ in tasks), *(spec.name for spec, _ in abilities)]
    _check_unique(names, (c for spec, _ in tasks for c in spec.configurations))
    others = [*(spec.data.local_names for spec, _ in tasks), *(spec.local_names for spec, _ in abilities)]
    data = local_data(options.data, options.data_dir, {task: [task, *known] for task, known in zip(names, others)})
    compliance = [_compliance(spec, path, data.get(spec.name), options, named) for spec, path in tasks]
    named.require_all_used()
    known = [spec.name for spec, _ in abilities]
    for task in options.documents:
        if task not in known:
            raise UserError(f"--documents {task}=…: no such capability in this run: {did_you_mean(task, known)}")
    capabilities = [
        _capability(spec, path, data.get(spec.name), options.documents.get(spec.name), options.trust_task_code)
        for spec, path in abilities
    ]
    _check_wordings(options.wordings, [task.spec for task in compliance])
    return Plan(suite, compliance, capabilities, options.split, options.limit, options.seed, options.min_judge_f1)


class NamedJudges:
    """Judges named by the user, each for the tasks that it supports."""

    def __init__(self, names: Iterable[str], options: JudgeOptions) -> None:
        """Load them.

        Raises:
            UserError: a judge could not be loaded.
        """
        sources = [find_judge(name) for name in names]
        self._judges = [(load_judge(str(source), options=options), judge_name(source)) for source in sources]
        self._refused: dict[str, UserError] = {}
        self._used: set[str] = set()

    def first_fitting(self, task: str, asked: Iterable[str], fields: Iterable[str]) -> ChosenJudge | None:
        """Return the first judge that supports a task; None if there is none."""
        asked, fields = list(asked), list(fields)
        for judge, source in self._judges:
            try:
                fitting = supporting(judge, task, asked, fields)
            except UserError as error:
                self._refused.setdefault(source, error)
                continue
            self._used.add(source)
            return ChosenJudge(fitting, source)
        return None

    def require_all_used(self) -> None:
        """Check that each named judge has a task.

        Raises:
            UserError: a judge has none.
        """
        for _, source in self._judges:
            if source not in self._used:
                raise self._refused.get(source) or UserError(f"judge {source} has no task to judge")


def _suite(options: RunOptions) -> Suite:
    """Return the named suite, or the named tasks as a suite."""
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


def _compliance(
    spec: ComplianceTask, path: Path, data: Path | None, options: RunOptions, named: NamedJudges
) -> PlannedCompliance:
    prompts = load_prompts(spec, path, data=data, limit=options.limit, split=options.split)
    judge = named.first_fitting(spec.name, spec.asked.values(), spec.data.fields)
    if judge is None:
        judge = default_judge(spec, path, options.judge_options)
    known = spec.known_wordings() | ({ALL_WORDINGS} if spec.unseen_wordings else set())
    wordings = choose_wordings(spec, [wording for wording in options.wordings if wording in known])
    generation = _generation(spec, options)
    return PlannedCompliance(spec, prompts, wordings, generation, options.samples, options.reference, judge)


def _generation(spec: ComplianceTask, options: RunOptions) -> GenerationSettings:
    """Return the task's sampling settings with the options of this run."""
    if options.temperature is None:
        generation = spec.generation
    else:
        generation = spec.generation.model_copy(update={"temperature": options.temperature})
    if options.samples > 1 and generation.temperature == 0:
        raise UserError(
            f"--samples {options.samples}: {spec.name} is sampled at temperature 0, which makes all responses to a "
            "prompt the same: give a --temperature, such as 0.7"
        )
    return generation


def _check_wordings(wordings: Sequence[str], tasks: Sequence[ComplianceTask]) -> None:
    known = {wording for task in tasks for wording in task.known_wordings()}
    if any(task.unseen_wordings for task in tasks):
        known.add(ALL_WORDINGS)
    for wording in wordings:
        if wording not in known:
            raise UserError(f"no task of this run has the wording {wording!r}: {did_you_mean(wording, known)}")


def _capability(
    spec: CapabilityTask, path: Path, data: Path | None, documents: int | None, trust_code: bool
) -> PlannedCapability:
    if not trust_code:
        require_no_code(spec, path)
    if data is not None and not data.is_dir():
        raise UserError(f"--data {spec.name}={data}: must be a folder that mirrors the data set on the Hub")
    return PlannedCapability(spec, path, data, documents, trust_code)


def _folder_digest(folder: Path | None) -> str | None:
    """Return the SHA-256 of a folder's data and definition files; None for no folder."""
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
