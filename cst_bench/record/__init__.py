"""The run record: typed `run.json`, `scores.json` and `outcomes.json`, the contract between runs and reports.

Each class is the only description of its file: it reads it, writes it, and carries its schema version.
"""

from cst_bench.record.identity import (
    CalibrationSummary,
    CheckpointIdentity,
    ConfusionCounts,
    JudgeRecord,
    SuiteRecord,
    TrainingIdentity,
)
from cst_bench.record.manifest import (
    CapabilityPart,
    CapabilitySettings,
    CompliancePart,
    ComplianceSettings,
    Environment,
    GenerationRecord,
    Manifest,
    RunSettings,
    Status,
)
from cst_bench.record.outcomes import ConfigurationLabels, DocumentScores, Outcomes
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.scores import (
    USELESS,
    Averages,
    AverageScore,
    CapabilityScore,
    ConfigurationScore,
    CorrectedScore,
    ReferenceCounts,
    Score,
    Scores,
    TaskJudge,
    TaskScores,
)
from cst_bench.record.spent import Judging, Spent, Usage

__all__ = [
    "USELESS",
    "AverageScore",
    "Averages",
    "CalibrationSummary",
    "CapabilityPart",
    "CapabilityScore",
    "CapabilitySettings",
    "CheckpointIdentity",
    "CompliancePart",
    "ComplianceSettings",
    "ConfigurationLabels",
    "ConfigurationScore",
    "ConfusionCounts",
    "CorrectedScore",
    "DocumentScores",
    "Environment",
    "GenerationRecord",
    "JudgeRecord",
    "Judging",
    "Manifest",
    "Outcomes",
    "Record",
    "RecordFile",
    "ReferenceCounts",
    "RunSettings",
    "Score",
    "Scores",
    "Spent",
    "Status",
    "SuiteRecord",
    "TaskJudge",
    "TaskScores",
    "TrainingIdentity",
    "Usage",
]
