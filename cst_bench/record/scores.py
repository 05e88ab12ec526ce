"""`scores.json`: everything that reports, comparisons and other programs read about the results of a run.

Scores are shares in 0 to 1; what is undefined is null, never 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cst_bench.record.identity import CalibrationSummary, CheckpointIdentity, JudgeRecord, SuiteRecord
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.statistics.intervals import Interval


class CorrectedScore(Record):
    """A score corrected for judge error."""

    method: Literal["ppi++", "rogan-gladen"]
    score: float | None
    interval: Interval | None
    labelled: int
    """Responses of this run that people labelled."""
    assumes: str
    """What the correction takes for granted."""
    undefined: str | None = None
    """Why there is no score."""


class Score(Record):
    """A share of responses, with Wilson's 95 % interval."""

    score: float | None
    n: int
    """Scored responses."""
    unscored: int
    """Responses without a verdict, in neither score nor n."""
    interval: Interval | None
    corrected: CorrectedScore | None = None


class ConfigurationScore(Score):
    """Compliance under one configuration."""

    behaviours: dict[str, int] = Field(default_factory=dict)
    """Behaviour → number of responses."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Why responses are unscored → number of responses."""


class ReferenceCounts(Record):
    """Responses under no system prompt: nothing is asked for, so nothing is scored."""

    n: int
    unscored: int
    behaviours: dict[str, int]


class TaskScores(Record):
    """The scores of a compliance task."""

    configurations: dict[str, ConfigurationScore]
    joint: Score | None = None
    """Share of prompts on which the model complies under every configuration; None for a single configuration."""
    reference: ReferenceCounts | None = None
    """Responses under no system prompt."""


class CapabilityScore(Record):
    """The score of a capability task, by lm-eval."""

    title: str
    metric: str | None
    score: float | None
    stderr: float | None
    interval: Interval | None
    n: int
    """Documents."""
    unavailable: str | None = None
    """Why there is no result."""


class AverageScore(Record):
    """The mean of several scores."""

    score: float | None
    interval: Interval | None
    stderr: float | None = None
    """Of capabilities only."""
    over: tuple[str, ...]
    """Configurations, or capability tasks."""


class Averages(Record):
    """Averages over configurations and over capability tasks; None if the run does not have all of them."""

    compliance: AverageScore | None
    capabilities: AverageScore | None


class TaskJudge(JudgeRecord):
    """The judge of a task with its calibration."""

    calibration: CalibrationSummary | None
    calibrated: bool
    """Whether the card's macro F1 reaches what the run requires."""


class Scores(RecordFile):
    """The content of `scores.json`."""

    FILE_NAME: ClassVar[str] = "scores.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge {folder}` writes it again"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    checkpoint: CheckpointIdentity
    suite: SuiteRecord
    judges: dict[str, TaskJudge]
    compliance: dict[str, TaskScores]
    capabilities: dict[str, CapabilityScore]
    averages: Averages
    notes: tuple[str, ...] = ()
    """What else a reader has to know."""
