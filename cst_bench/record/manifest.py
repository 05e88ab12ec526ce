"""`run.json`: what a run is, and how far it is."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cst_bench.record.identity import CalibrationSummary, CheckpointIdentity, JudgeRecord, SuiteRecord
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.spent import Judging, Usage


class GenerationRecord(Record):
    """How responses were sampled."""

    max_tokens: int
    temperature: float
    top_p: float


class ComplianceSettings(Record):
    """What decides the results of a compliance task."""

    title: str
    version: int
    sha256: str
    """SHA-256 of the task file's content."""
    configurations: dict[str, str]
    """Configuration → the behaviour that it asks for."""
    fields: tuple[str, ...] = ()
    """Columns handed to the judge."""
    wording: str
    data: str
    """Data set and revision, or file name."""
    data_sha256: str
    prompts: int
    judge: JudgeRecord
    generation: GenerationRecord | None
    """None for generations made elsewhere."""


class CapabilitySettings(Record):
    """What decides the results of a capability task."""

    title: str
    version: int
    sha256: str
    """SHA-256 of the task file's content."""
    definitions_sha256: str | None
    """SHA-256 of the task's own lm-eval definitions; None for lm-eval's stock ones."""
    data_sha256: str | None
    """SHA-256 of local data; None for the data set on the Hub."""


class RunSettings(Record):
    """Everything that decides the results of a run. Runs with other settings are never mixed in one folder."""

    checkpoint: CheckpointIdentity
    device: str | None = None
    suite: SuiteRecord
    average: tuple[str, ...] = ()
    """Configurations of the compliance average."""
    compliance: dict[str, ComplianceSettings]
    capabilities: dict[str, CapabilitySettings]
    split: str = "test"
    limit: int | None = None
    seed: int | None = None
    min_judge_f1: float
    packages: dict[str, str]
    """Installed versions."""


class CompliancePart(Record):
    """Progress of a compliance task."""

    state: Literal["pending", "generated", "judged"] = "pending"
    log: str | None = None
    """Inspect log with the responses, relative to the run folder."""
    seconds: float | None = None
    """Time of generation."""
    responses: int | None = None
    usage: Usage | None = None
    judging: Judging | None = None
    calibration: CalibrationSummary | None = None
    """Summary of the judge's calibration card."""


class CapabilityPart(Record):
    """Progress of a capability task."""

    state: Literal["pending", "done", "unavailable"] = "pending"
    seconds: float | None = None
    fallback: str | None = None
    """Why lm-eval's stock scoring was used; None if it was not."""
    reason: str | None = None
    """Why the task is unavailable."""


class Status(Record):
    """How far a run is."""

    run: Literal["running", "finished"] = "running"
    compliance: dict[str, CompliancePart] = Field(default_factory=dict)
    capabilities: dict[str, CapabilityPart] = Field(default_factory=dict)


class Environment(Record):
    """The machine that a run was made on."""

    python: str
    platform: str


class Manifest(RecordFile):
    """The content of `run.json`."""

    FILE_NAME: ClassVar[str] = "run.json"
    WRITTEN_BY: ClassVar[str] = "make the run again into a new folder (`cst-bench run` or `cst-bench score` with --out)"

    schema_version: Literal[3] = Field(default=3, alias="schema")
    settings: RunSettings
    settings_sha256: str
    status: Status
    environment: Environment | None = None
    """None in published runs."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None = None
    earlier_judges: tuple[dict[str, JudgeRecord], ...] = ()
    """Judges whose verdicts were replaced, by task."""
