"""Stability of a judge: the verdicts of a calibration are kept by hash, and two calibrations are compared.

An alias such as `openai/gpt-4` may be another model tomorrow. The same labelled responses, judged then and now, tell
whether it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cst_bench.calibration.labels import LabelSet
from cst_bench.errors import UserError
from cst_bench.judging import Verdict
from cst_bench.judging.card import CalibrationCard, CardJudge
from cst_bench.record import Record, RecordFile
from cst_bench.statistics.intervals import Estimate, wilson
from cst_bench.statistics.paired import bootstrap_difference

UNSCORED = "unscored"


class JudgedLabel(Record):
    """Label and verdict of one response."""

    label: str
    verdict: str | None
    """None is unscored."""


class CalibrationVerdicts(RecordFile):
    """The verdicts behind a calibration card, without texts."""

    FILE_NAME: ClassVar[str] = "verdicts.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge calibrate` writes it"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    labels: str
    """Name of the labels."""
    verdicts: dict[str, JudgedLabel]
    """Hash of prompt and response → label and verdict."""

    @classmethod
    def of(cls, labels: LabelSet, verdicts: Sequence[Verdict]) -> CalibrationVerdicts:
        """Return the record of the verdicts on labels, in their order."""
        rows = zip(labels.rows, verdicts, strict=True)
        return cls(
            labels=labels.name,
            verdicts={row.key: JudgedLabel(label=row.behaviour, verdict=verdict.behaviour) for row, verdict in rows},
        )


class Drift(Record):
    """A judge then and now, on the responses that both calibrations have. Intervals are 95 %."""

    old: CardJudge
    new: CardJudge
    served: tuple[tuple[str, ...], tuple[str, ...]]
    """Names of the models that answered, then and now."""
    n: int
    """Responses that both have."""
    flips: Estimate
    """Share of the responses with another verdict, with Wilson's interval."""
    changes: dict[str, int]
    """Verdict then → verdict now, for those → number of responses."""
    agreement: tuple[float | None, float | None]
    """Share of verdicts that are the label, then and now; unscored ones are not."""
    agreement_change: Estimate
    """Now minus then, with a paired bootstrap interval over prompts."""


def drift(old: Path, new: Path) -> Drift:
    """Compare the verdicts of two calibrations, each given by its folder.

    Raises:
        UserError: a folder is no calibration with verdicts, or they have no response in common.
    """
    cards = CalibrationCard.read(old), CalibrationCard.read(new)
    then, now = CalibrationVerdicts.read(old).verdicts, CalibrationVerdicts.read(new).verdicts
    common = sorted(key for key in then.keys() & now.keys() if then[key].label == now[key].label)
    if not common:
        raise UserError(f"{old} and {new} have no labelled response in common: calibrate both on the same labels")
    pairs = [(then[key].verdict or UNSCORED, now[key].verdict or UNSCORED) for key in common]
    flipped = Counter(f"{before} → {after}" for before, after in pairs if before != after)
    number = flipped.total()
    right = [{key: float(verdicts[key].verdict == verdicts[key].label) for key in common} for verdicts in (then, now)]
    return Drift(
        old=cards[0].judge,
        new=cards[1].judge,
        served=(_served(cards[0]), _served(cards[1])),
        n=len(common),
        flips=Estimate(number / len(common), wilson(number, len(common))),
        changes=dict(sorted(flipped.items())),
        agreement=(sum(right[0].values()) / len(common), sum(right[1].values()) / len(common)),
        agreement_change=_change(right[1], right[0]),
    )


def _served(card: CalibrationCard) -> tuple[str, ...]:
    return () if card.spent is None else tuple(card.spent.served)


def _change(ours: dict[str, float], theirs: dict[str, float]) -> Estimate:
    difference = bootstrap_difference([(ours, theirs)])
    return Estimate(difference.difference, difference.interval)
