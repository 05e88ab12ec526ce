"""Calibration cards: a judge's agreement with labels, as a typed file, and how the card of a judge is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import Judge
from cst_bench.record import CalibrationSummary, ConfusionCounts, Record, RecordFile, Spent
from cst_bench.statistics.agreement import Agreement
from cst_bench.statistics.classification import Reliability, SelectivePoint
from cst_bench.statistics.intervals import Estimate

SHIPPED = "judges/cards"
MIN_LABELS = 20
"""Labels of each behaviour that a calibrated judge was measured on."""
BY_CONSTRUCTION = "by construction"
"""How labels begin that follow from how a response was made."""
OWN = Path("calibrations")
"""Folder that `cst-bench judge calibrate` writes into, relative to the working directory."""
VARYING = frozenset({"seconds", "per_second", "packages", "made"})
"""Fields of a card that differ from one calibration to the next without a change of judge or labels."""


class CardJudge(Record):
    """The judge of a card."""

    name: str
    version: int
    kind: str
    sha256: str
    """Identity: SHA-256 of everything that decides a verdict."""
    behaviours: tuple[str, ...]
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of its kind: `model`, `members`, …"""

    @classmethod
    def describe(cls, judge: Judge) -> CardJudge:
        """Return the card's description of a judge."""
        return cls(
            name=judge.name,
            version=judge.version,
            kind=judge.kind,
            sha256=judge.identity,
            behaviours=judge.behaviours,
            details=dict(judge.details),
        )

    @property
    def model(self) -> str | None:
        """Return the model that is asked, if the judge asks one."""
        model = self.details.get("model")
        return model if isinstance(model, str) else None


class CardLabels(Record):
    """The labels that a judge is compared with."""

    name: str
    sha256: str
    by: tuple[str, ...]
    """Who labelled."""
    n: int


class BehaviourMetrics(Record):
    """Metrics of one behaviour against all others."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    counts: ConfusionCounts


class ConfusionMatrix(Record):
    """Numbers of responses by label (rows) and verdict (columns)."""

    behaviours: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if [len(row) for row in self.matrix] != [len(self.behaviours)] * len(self.behaviours):
            raise ValueError("the matrix must have a row and a column for each behaviour")
        return self


class SliceMetrics(Record):
    """Metrics of a part of the labels."""

    n: int
    agreement: float | None
    macro_f1: float | None


class Disagreement(Record):
    """A response on which label and verdict differ."""

    id: str
    label: str
    verdict: str


class CalibrationCard(RecordFile):
    """A judge measured against labelled responses. Undefined values are null; intervals are 95 %."""

    FILE_NAME: ClassVar[str] = "card.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge calibrate` writes one"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    judge: CardJudge
    labels: CardLabels
    measures: Literal["accuracy", "agreement"]
    """Accuracy only where people labelled: model labels are not ground truth."""
    agreement_with: str
    """Source of the labels in words."""
    n: int
    """Scored responses."""
    unscored: dict[str, int]
    """Reason → number of responses, which are in no metric."""
    prevalence: dict[str, float]
    """Behaviour → share of the labels."""
    behaviours: dict[str, BehaviourMetrics]
    macro_f1: Estimate
    mcc: Estimate
    kappa: Estimate
    balanced_accuracy: Estimate
    agreement: Estimate
    pessimistic_macro_f1: Estimate
    """Macro F1 with unscored responses counted as wrong."""
    confusion: ConfusionMatrix
    reliability: Reliability | None
    """None for a judge without probabilities."""
    selective: tuple[SelectivePoint, ...] = ()
    """Share of right verdicts from a probability on; empty for a judge without probabilities."""
    slices: dict[str, dict[str, SliceMetrics]]
    by_model: dict[str, dict[str, ConfusionCounts]] = Field(default_factory=dict)
    """Model that made the responses → behaviour → counts; responses of unknown models are together under the name of
    their label set. Empty if no model is known."""
    panel: Agreement | None = None
    """Agreement of a panel's members."""
    retest: Agreement | None = None
    """Agreement of the judge with itself, asked several times."""
    disagreements: tuple[Disagreement, ...]
    seconds: float
    per_second: float | None
    spent: Spent | None
    seed: int
    packages: dict[str, str]
    made: str
    """UTC, ISO 8601."""

    def summary(self) -> CalibrationSummary:
        """Return what a run keeps of the card; its SHA-256 is the same for the same judge, labels and verdicts."""
        return CalibrationSummary(
            macro_f1=self.macro_f1.value,
            interval=self.macro_f1.interval,
            n=self.n,
            labels=self.labels.name,
            by=self.labels.by,
            sha256=digest({name: value for name, value in self.as_json().items() if name not in VARYING}),
            counts={name: metrics.counts for name, metrics in self.behaviours.items()},
            by_model=self.by_model,
        )


def read_card(path: Path) -> CalibrationCard:
    """Read a card from its file.

    Raises:
        UserError: the file is not a calibration card, or of another schema version.
    """
    return CalibrationCard.read_path(path)


def find_card(
    identity: str, judge_file: Path | None = None, note: Callable[[str], None] = lambda _: None
) -> CalibrationCard | None:
    """Find the card of the judge with this SHA-256.

    Places are searched in order: beside the judge's file, `calibrations/` of the working directory, the shipped cards;
    who calibrated a judge on their own labels means those. Of several in one place, the one on most labels is taken.
    A card that cannot be read, which may be of any judge, is passed over; `note` is called with why.
    """
    for cards in _cards(judge_file, note):
        card = _on_most_labels(card for card in cards if card.judge.sha256 == identity)
        if card is not None:
            return card
    return None


def find_card_by_name(name: str, version: int, note: Callable[[str], None] = lambda _: None) -> CalibrationCard | None:
    """Find the card on most labels of a judge of this name and version, whatever model it asked; `note` as above."""
    for cards in _cards(None, note):
        card = _on_most_labels(card for card in cards if (card.judge.name, card.judge.version) == (name, version))
        if card is not None:
            return card
    return None


def _on_most_labels(cards: Iterable[CalibrationCard]) -> CalibrationCard | None:
    return min(cards, key=lambda card: (-card.n, card.labels.name), default=None)


def _cards(judge_file: Path | None, note: Callable[[str], None]) -> Iterator[list[CalibrationCard]]:
    """Yield the readable cards of each place, the nearest first."""
    beside = None if judge_file is None else judge_file.parent / "calibration" / "card.json"
    if beside is not None and beside.is_file():
        yield list(_readable([beside], note))
    yield list(_readable(sorted(OWN.glob("*/card.json")), note))
    yield list(_readable(sorted((content_root() / SHIPPED).rglob("*.json")), note))


def _readable(paths: Iterable[Path], note: Callable[[str], None]) -> Iterator[CalibrationCard]:
    for path in paths:
        try:
            yield read_card(path)
        except UserError as error:
            note(f"a calibration card is passed over: {error}")


def why_uncalibrated(summary: CalibrationSummary | None, min_f1: float) -> tuple[str, ...]:
    """Return why a judge is not calibrated, as clauses for a report; empty if it is.

    A judge is calibrated if its card shows a macro F1 of `min_f1` or more (lower end of the 95 % interval), on at least
    20 labels of each behaviour, none of which follows from how the response was made.
    """
    if summary is None:
        return ("it has no calibration card",)
    reasons = []
    if summary.macro_f1 is None or summary.interval is None:
        reasons.append("its macro F1 has no interval")
    elif summary.interval[0] < min_f1:
        reasons.append(f"its macro F1 may be as low as {_floor(summary.interval[0])}, below {min_f1:g}")
    few = {name: rates.tp + rates.fn for name, rates in (summary.counts or {}).items()}
    few = {name: labelled for name, labelled in few.items() if labelled < MIN_LABELS}
    if summary.counts is None:
        reasons.append("its card does not say how many labels each behaviour has")
    elif few:
        counted = ", ".join(f"{labelled} of {name}" for name, labelled in few.items())
        reasons.append(f"it was measured on too few labels ({counted}; {MIN_LABELS} of each are needed)")
    if any(by.startswith(BY_CONSTRUCTION) for by in summary.by):
        reasons.append("its labels are by construction, not by a reader of the responses")
    return tuple(reasons)


def _floor(share: float) -> str:
    """Return a share to two digits, rounded down, so that what is below a minimum reads so."""
    return f"{math.floor(100 * share) / 100:.2f}"
