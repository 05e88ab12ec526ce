"""`scores.json`: everything that reports, comparisons and other programs read about the results of a run.

Scores are shares in 0 to 1; what is undefined is null, never 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cst_bench.record.identity import CalibrationSummary, CheckpointIdentity, JudgeRecord, SuiteRecord
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.side_effects import SideEffect, SideEffectName
from cst_bench.statistics.intervals import Interval


class CorrectedScore(Record):
    """A score corrected for judge error."""

    method: Literal["ppi++", "rogan-gladen", "cascade"]
    """How the score was corrected."""
    score: float | None
    """Estimate of the share without judge error; None if undefined."""
    interval: Interval | None
    """95 % interval."""
    labelled: int
    """Responses of this run that people labelled or, for `cascade`, that the second judge checked."""
    unsure: int = 0
    """Labelled responses of which people were unsure or disagreed; the interval has both extremes of what they show."""
    assumes: str
    """Assumption of the correction."""
    undefined: str | None = None
    """Why there is no score."""


class Score(Record):
    """A share of responses, averaged within each prompt, with Wilson's 95 % interval, clustered by prompt."""

    score: float | None
    """Share of the scored responses; None if there are none."""
    n: int
    """Scored responses."""
    unscored: int
    """Responses without a verdict, in neither score nor n."""
    interval: Interval | None
    """95 % interval; None without a score."""
    prompts: int | None = None
    """Prompts with a scored response; None in runs with one response for each."""
    bounds: Interval | None = None
    """Scores if all unscored responses failed, and if all complied; None if nothing is unscored."""
    corrected: CorrectedScore | None = None
    """Score corrected for judge error; None if there is nothing to correct it by."""


USELESS = ("neither", "incapable", "cut off", "repeated")
"""Faults of a response that make it useless, in the order in which reports list them."""


class ConfigurationScore(Score):
    """Compliance under one configuration."""

    behaviours: dict[str, int] = Field(default_factory=dict)
    """Behaviour → number of responses."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Why responses are unscored → number of responses."""
    degenerate: dict[str, int] = Field(default_factory=dict)
    """Finding of the check for degenerate responses → number of responses, which are `neither`."""
    cut_off: int | None = None
    """Responses that ended at the token limit; None if unknown."""
    repeated: int | None = None
    """Responses that repeat themselves, at least in their second half; None in runs without the check."""
    wordings: dict[str, float | None] = Field(default_factory=dict)
    """Wording of the system prompt → score, in runs with several."""

    @property
    def useless(self) -> dict[str, int]:
        """Return the numbers of responses that say little, by the names in `USELESS`; no zeros.

        Empty for runs that were made without the check for degenerate responses.
        """
        if self.repeated is None:
            return {}
        counts = {**self.behaviours, "cut off": self.cut_off, "repeated": self.repeated}
        return {name: count for name in USELESS if (count := counts.get(name))}


class ReferenceCounts(Record):
    """Responses under no system prompt: nothing is asked for, so nothing is scored."""

    n: int
    """Responses with a verdict."""
    unscored: int
    """Responses without one."""
    behaviours: dict[str, int]
    """Behaviour → number of responses."""


class TaskScores(Record):
    """The scores of a compliance task."""

    configurations: dict[str, ConfigurationScore]
    """Configuration → its score."""
    joint: Score | None = None
    """Share of prompts on which the model complies under every configuration; None for a single configuration."""
    reference: ReferenceCounts | None = None
    """Responses under no system prompt."""
    side_effects: dict[str, dict[SideEffectName, SideEffect]] = Field(default_factory=dict)
    """Configuration (`none`: no system prompt) → what else its responses are like; empty in runs from before it was
    measured."""


class CapabilityScore(Record):
    """The score of a capability task, by lm-eval."""

    title: str
    """Column name in reports."""
    metric: str | None
    """lm-eval's name of the metric."""
    score: float | None
    """Score in the metric, 0 to 1."""
    stderr: float | None
    """Standard error, by lm-eval."""
    interval: Interval | None
    """95 % interval."""
    n: int
    """Documents."""
    unavailable: str | None = None
    """Why there is no result."""


class AverageScore(Record):
    """The mean of several scores."""

    score: float | None
    """Unweighted mean."""
    interval: Interval | None
    """95 % interval."""
    stderr: float | None = None
    """Standard error, for capabilities only."""
    over: tuple[str, ...]
    """Configurations, or capability tasks."""


class Averages(Record):
    """Averages over configurations and over capability tasks; None if the run does not have all of them."""

    compliance: AverageScore | None
    """Over the configurations that the suite averages."""
    capabilities: AverageScore | None
    """Over the capability tasks."""


class TaskJudge(JudgeRecord):
    """The judge of a task with its calibration."""

    calibration: CalibrationSummary | None
    """Summary of the judge's calibration card; None if there is none."""
    calibrated: bool
    """Whether the card shows that the judge reaches the macro F1 that the run requires."""
    uncalibrated: tuple[str, ...] = ()
    """Why the judge is not calibrated; empty in runs that were scored before the reasons were kept."""


class Scores(RecordFile):
    """The content of `scores.json`."""

    FILE_NAME: ClassVar[str] = "scores.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge {folder}` writes it again"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    """Version of this format."""
    checkpoint: CheckpointIdentity
    """Evaluated weights."""
    suite: SuiteRecord
    """Suite of the run."""
    judges: dict[str, TaskJudge]
    """Compliance task → its judge."""
    compliance: dict[str, TaskScores]
    """Compliance task → its scores."""
    capabilities: dict[str, CapabilityScore]
    """Capability task → its score."""
    averages: Averages
    """Averages."""
    notes: tuple[str, ...] = ()
    """Further notes for the reader."""
