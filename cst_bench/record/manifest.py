"""`run.json`: what a run is, and how far it is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from cst_bench.record.identity import CalibrationSummary, CheckpointIdentity, JudgeRecord, SuiteRecord
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.spent import Judging, Usage


class GenerationRecord(Record):
    """How responses were sampled."""

    max_tokens: int
    """Most tokens of a response."""
    temperature: float
    """Sampling temperature; 0 is greedy."""
    top_p: float
    """Share of probability that was sampled from."""
    samples: int = 1
    """Responses to each prompt, configuration and wording."""


class ComplianceSettings(Record):
    """Settings that decide the results of a compliance task."""

    title: str
    """Name in reports."""
    version: int
    """Version of the task."""
    sha256: str
    """SHA-256 of the task file's content."""
    configurations: dict[str, str]
    """Configuration → the behaviour that it asks for."""
    fields: tuple[str, ...] = ()
    """Columns handed to the judge."""
    wording: str
    """Wording of the system prompts; several are separated by commas."""
    wordings: tuple[str, ...] = ()
    """The wordings, where there are several."""
    data: str
    """Data set and revision, or file name."""
    data_sha256: str
    """SHA-256 of the prompts and their fields."""
    prompts: int
    """Number of prompts."""
    judge: JudgeRecord
    """Judge of the responses."""
    generation: GenerationRecord | None
    """None for generations made elsewhere."""
    reference: bool = True
    """Whether each prompt is also answered with no system prompt."""

    @property
    def repeats(self) -> bool:
        """Return whether prompts have several responses under a configuration."""
        return len(self.wordings) > 1 or (self.generation is not None and self.generation.samples > 1)


class CapabilitySettings(Record):
    """Settings that decide the results of a capability task."""

    title: str
    """Column name in reports."""
    version: int
    """Version of the task."""
    sha256: str
    """SHA-256 of the task file's content."""
    definitions_sha256: str | None
    """SHA-256 of the task's own lm-eval definitions; None for lm-eval's stock ones."""
    data_sha256: str | None
    """SHA-256 of local data; None for the data set on the Hub."""
    softmax_dtype: str | None = None
    """Type of the softmax over the vocabulary; None in runs from before it was recorded."""
    documents: int | None = None
    """Number of random documents of each (sub)task; None for all, or for the run's `limit`."""


class DivergenceSettings(Record):
    """Settings that decide the KL divergence from a base."""

    base: CheckpointIdentity
    """Weights that the evaluated ones are compared with."""
    tasks: tuple[str, ...]
    """Compliance tasks whose prompts are answered."""


class EngineSettings(Record):
    """The server that generates the responses of a run."""

    kind: Literal["vllm", "sglang", "server"]
    """Engine that the run starts, or `server` for one that runs already."""
    model: str | None = None
    """Name of the checkpoint on a server, where that was given."""
    arguments: tuple[str, ...] = ()
    """More arguments of the engine."""
    checked: bool = True
    """Whether greedy responses are compared with those in process first."""
    capabilities: bool = False
    """Whether the capabilities are scored there, too."""

    @property
    def title(self) -> str:
        """Return the name in reports and messages."""
        return {"vllm": "vLLM", "sglang": "SGLang", "server": "a server"}[self.kind]


class RunSettings(Record):
    """Everything that decides the results of a run. Runs with other settings are never mixed in one folder."""

    checkpoint: CheckpointIdentity
    """Evaluated weights."""
    device: str | None = None
    """Device that the model ran on."""
    suite: SuiteRecord
    """Suite of the run."""
    engine: EngineSettings | None = None
    """Server that generates the responses; None if they are generated in process, or by an API model."""
    average: tuple[str, ...] = ()
    """Configurations of the compliance average."""
    compliance: dict[str, ComplianceSettings]
    """Compliance task → what decides its results."""
    capabilities: dict[str, CapabilitySettings]
    """Capability task → what decides its results."""
    divergence: DivergenceSettings | None = None
    """KL divergence from a base; None if it is not measured."""
    split: str = "test"
    """Split of the prompts."""
    limit: int | None = None
    """Most prompts or documents of each task; None for all."""
    seed: int | None = None
    """Random seed for sampling."""
    min_judge_f1: float
    """Macro F1 that a calibrated judge reaches, by the lower end of its 95 % interval."""
    packages: dict[str, str]
    """Installed versions."""


class CompliancePart(Record):
    """Progress of a compliance task."""

    state: Literal["pending", "generated", "judged"] = "pending"
    """How far the task is."""
    logs: tuple[str, ...] = ()
    """Inspect logs with the responses, relative to the run folder."""
    log: str | None = Field(default=None, exclude=True)
    """The only log, in runs of versions that wrote one for each task."""
    seconds: float | None = None
    """Time of generation."""
    responses: int | None = None
    """Number of responses."""
    usage: Usage | None = None
    """Tokens of the responses."""
    fallback: str | None = None
    """How responses were decoded that could not share a running batch, and why; None if all could, or not known."""
    judging: Judging | None = None
    """Cost of judging."""
    calibration: CalibrationSummary | None = None
    """Summary of the judge's calibration card."""

    @model_validator(mode="before")
    @classmethod
    def _with_one_log(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("log") is None:
            return content
        return {**content, "log": None, "logs": [content["log"]]}


class CapabilityPart(Record):
    """Progress of a capability task."""

    state: Literal["pending", "done", "unavailable"] = "pending"
    """How far the task is."""
    seconds: float | None = None
    """Time of scoring."""
    kernel: str | None = None
    """Attention kernel of the scoring, and why not a faster one; None in runs from before it was recorded."""
    fallback: str | None = None
    """Why lm-eval's stock scoring was used; None if it was not."""
    reason: str | None = None
    """Why the task is unavailable."""


class DivergencePart(Record):
    """Progress of the KL divergence on a task's prompts."""

    state: Literal["pending", "done"] = "pending"
    """How far it is."""
    seconds: float | None = None
    """Time of the last call."""


class EngineCheck(Record):
    """Greedy responses of a server beside those of the checkpoint in process."""

    prompts: int
    """Number of prompts."""
    equal: int
    """Prompts with equal responses."""
    equal_first: int
    """Prompts with responses that begin with the same token."""
    tokens: int
    """Tokens of the responses in process, with those that end them."""
    equal_tokens: int
    """Tokens before the first difference of each response."""


class EnginePart(Record):
    """The server of a run, as it was found."""

    model: str
    """Name of the checkpoint there."""
    context_length: int | None = None
    """Most tokens of prompt and response that it takes, if that is less than the checkpoint does."""
    check: EngineCheck | None = None
    """None if its responses were not compared with those in process."""


class Status(Record):
    """How far a run is."""

    run: Literal["running", "finished"] = "running"
    """How far the run is."""
    engine: EnginePart | None = None
    """Server that generated the responses; None if there is none."""
    compliance: dict[str, CompliancePart] = Field(default_factory=dict)
    """Compliance task → its progress."""
    capabilities: dict[str, CapabilityPart] = Field(default_factory=dict)
    """Capability task → its progress."""
    divergence: dict[str, DivergencePart] = Field(default_factory=dict)
    """Compliance task → progress of the KL divergence on its prompts."""


class Environment(Record):
    """The machine that a run was made on."""

    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""


class Manifest(RecordFile):
    """The content of `run.json`."""

    FILE_NAME: ClassVar[str] = "run.json"
    WRITTEN_BY: ClassVar[str] = "make the run again into a new folder (`cst-bench run` or `cst-bench score` with --out)"

    schema_version: Literal[3] = Field(default=3, alias="schema")
    """Version of this format."""
    settings: RunSettings
    """Everything that decides the results."""
    settings_sha256: str
    """SHA-256 of the settings."""
    status: Status
    """How far the run is."""
    environment: Environment | None = None
    """None in published runs."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None = None
    """UTC, ISO 8601; None while it runs."""
    has_receipt: bool = False
    """Whether the run was finished with a `receipt.json`, which is written just before this file."""
    earlier_judges: tuple[dict[str, JudgeRecord], ...] = ()
    """Judges whose verdicts were replaced, by task."""
