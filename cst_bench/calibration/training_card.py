"""Training card of a local judge: what it was trained on, and its cross-validated metrics."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from cst_bench.judging.card import CardJudge
from cst_bench.record import Record, RecordFile
from cst_bench.statistics.intervals import Estimate


class ContradictedLabels(Record):
    """Labels by construction that the responses contradict: responses that decline."""

    declining: str | None
    """Behaviour of responses that decline, if one can be recognized."""
    labelled: dict[str, int]
    """Label → number of contradicted responses."""
    learnt_as_declining: int
    left_out: int


class TrainingLabels(Record):
    """The labelled responses that a judge was trained on."""

    name: str
    sha256: str
    by: tuple[str, ...]
    n: int
    prompts: int
    prevalence: dict[str, float]
    left_out: dict[str, int]
    """Reason → number of responses."""
    contradicted: ContradictedLabels
    keys_sha256: tuple[str, ...]
    """Short hashes of the responses: a calibration refuses them."""


class HeldOutMetrics(Record):
    """Metrics on responses whose prompts a model had not seen."""

    n: int
    macro_f1: Estimate
    mcc: Estimate


class CrossValidation(Record):
    """Cross-validated metrics, folds by prompt."""

    folds: int
    agreement_with: str
    """Source of the labels in words."""
    without_contradicted: HeldOutMetrics
    with_contradicted: HeldOutMetrics


class JudgeTrainingCard(RecordFile):
    """How a local judge was trained."""

    FILE_NAME: ClassVar[str] = "card.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge train` writes one"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    judge: CardJudge
    trained_on: TrainingLabels
    cross_validation: CrossValidation
    seed: int
    penalty: float
    features: dict[str, JsonValue]
    seconds: float
    per_second: float
    packages: dict[str, str]


class HeldOutVerdicts(RecordFile):
    """Verdicts of a judge that comes with the project, on labels that it was trained on.

    They are those of trainings that had left out the response's prompt and, where a set has few of them, its model.
    """

    FILE_NAME: ClassVar[str] = "held_out.json"
    WRITTEN_BY: ClassVar[str] = "`python scripts/local_judge.py --validate` writes it"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    trained_on: tuple[str, ...]
    """Short hashes of the responses that the judge was trained on."""
    log_odds: dict[str, float]
    """Short hash of a response → log odds of the judge's second behaviour, by a training that had left it out."""
    figures: dict[str, JsonValue]
    """Test → part of the judge (`encoder`, `cues`, `both`) → metrics."""


def short(key: str) -> str:
    """Return the short hash by which a training card lists the responses that a judge has seen: 16 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def read_held_out(judge_file: Path) -> HeldOutVerdicts | None:
    """Read the held-out verdicts in the folder of a judge that comes with the project; None without them.

    Raises:
        UserError: the file is damaged, or of another schema version.
    """
    folder = judge_file.with_suffix("")
    return HeldOutVerdicts.read(folder) if (folder / HeldOutVerdicts.FILE_NAME).is_file() else None


def trained_on(judge_file: Path) -> frozenset[str]:
    """Read the short hashes in the training card beside a judge file; empty without such a card.

    Raises:
        UserError: the file is not a training card, or of another schema version.
    """
    held_out = read_held_out(judge_file)
    if held_out is not None:
        return frozenset(held_out.trained_on)
    folder = judge_file.parent
    if not (folder / JudgeTrainingCard.FILE_NAME).is_file():
        return frozenset()
    return frozenset(JudgeTrainingCard.read(folder).trained_on.keys_sha256)
