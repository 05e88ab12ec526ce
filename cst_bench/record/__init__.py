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
    DivergencePart,
    DivergenceSettings,
    Environment,
    GenerationRecord,
    Manifest,
    RunSettings,
    Status,
)
from cst_bench.record.outcomes import ConfigurationLabels, DocumentScores, Outcomes
from cst_bench.record.record_file import Record, RecordFile, read_record_lines, validated
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
from cst_bench.record.side_effects import KL, SHARES, SideEffect, SideEffectName
from cst_bench.record.spent import Judging, Spent, Usage

__all__ = [
    "KL",
    "SHARES",
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
    "DivergencePart",
    "DivergenceSettings",
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
    "SideEffect",
    "SideEffectName",
    "Spent",
    "Status",
    "SuiteRecord",
    "TaskJudge",
    "TaskScores",
    "TrainingIdentity",
    "Usage",
    "read_record_lines",
    "validated",
]
