"""What the files of a finished run hold, as far as reports read them: the shape that they are checked against."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

Interval = list[float] | None


class Suite(TypedDict):
    """Of a run."""

    name: str
    version: int
    title: str


class Judge(TypedDict):
    """Who judged a task."""

    name: str
    version: int
    kind: str
    sha256: str
    model: NotRequired[str | None]


class ComplianceTask(TypedDict):
    """How a compliance task was run."""

    title: str
    version: int
    sha256: str
    configurations: dict[str, str]
    wording: str
    data: str
    data_sha256: str
    prompts: int
    judge: Judge
    generation: dict[str, Any] | None


class CapabilityTask(TypedDict):
    """How a capability task was run."""

    title: str
    version: int
    sha256: str
    definitions_sha256: str | None


class Settings(TypedDict):
    """What decided a run's results."""

    checkpoint: dict[str, Any]
    suite: Suite
    compliance: dict[str, ComplianceTask]
    capabilities: dict[str, CapabilityTask]
    split: str
    limit: int | None
    seed: int | None
    packages: dict[str, str]


class Status(TypedDict):
    """How far a run is."""

    run: str
    compliance: dict[str, dict[str, Any]]
    capabilities: dict[str, dict[str, Any]]


class Manifest(TypedDict):
    """run.json."""

    settings: Settings
    status: Status


class Checkpoint(TypedDict):
    """What was evaluated."""

    label: str


class Calibration(TypedDict):
    """What a judge's card says."""

    macro_f1: float | None
    interval: Interval
    n: int
    labels: str
    by: list[str]


class ScoresJudge(Judge):
    """A judge and its card."""

    calibrated: bool
    calibration: Calibration | None


class Score(TypedDict):
    """Of a configuration, joint compliance, or the arm without a system prompt, which has no score."""

    n: int
    unscored: int
    score: NotRequired[float | None]
    interval: NotRequired[Interval]
    corrected: NotRequired[dict[str, Any] | None]


class Capability(TypedDict):
    """Of a capability task."""

    title: str
    metric: str | None
    score: float | None
    interval: Interval
    n: int


class Average(TypedDict):
    """Of several scores."""

    score: float | None
    interval: Interval
    over: list[str]


class Averages(TypedDict):
    """Of configurations and of capabilities."""

    compliance: Average | None
    capabilities: Average | None


class Scores(TypedDict):
    """scores.json."""

    checkpoint: Checkpoint
    suite: Suite
    judges: dict[str, ScoresJudge]
    compliance: dict[str, dict[str, Score]]
    capabilities: dict[str, Capability]
    averages: Averages


class Documents(TypedDict):
    """Of a capability."""

    documents_sha256: str
    scores: dict[str, float]


class Outcomes(TypedDict):
    """outcomes.json."""

    compliance: dict[str, dict[str, dict[str, str | None]]]
    capabilities: dict[str, Documents]


FILES: dict[str, TypeAdapter[Any]] = {
    "run.json": TypeAdapter(Manifest),
    "scores.json": TypeAdapter(Scores),
    "outcomes.json": TypeAdapter(Outcomes),
}


def fault(name: str, value: object) -> str | None:
    """What is wrong with the content of a file, `settings.suite.name: Field required`; None if nothing is."""
    try:
        FILES[name].validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
