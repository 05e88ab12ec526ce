"""Judges of kind `cascade`: a cheap judge decides where it is sure, and a better one where it is not.

The second judge also reads a random part of what the first is sure of. From that part a run's scores are corrected for
the first judge's errors (`cst_bench.runs.corrected_scores`), so that they estimate what the second judge would have
said of every response. The rule is selective classification (El-Yaniv and Wiener 2010, JMLR 11): the first judge's
verdict stands from a probability on, which its calibration card gives for a wanted share of right verdicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import (
    Case,
    FirstVerdict,
    Judge,
    JudgeFile,
    JudgeOptions,
    Verdict,
    describe_judge,
    in_terms_of,
)


class CascadeFile(JudgeFile):
    """Judge file of kind `cascade`."""

    kind: Literal["cascade"]
    """A cheap judge first, a better one where it is unsure."""
    behaviours: list[str] = Field(min_length=2)
    """Behaviours, the same for both judges."""
    first: str
    """Judge that reads every response and gives probabilities; a name or a path."""
    second: str
    """Judge that reads what the first is unsure of; a name or a path."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Probability from which the first judge's verdict stands; if None, the least one at which its calibration card
    has `accuracy`."""
    accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.97
    """Share of right verdicts that the first judge must have on its card where its verdicts stand; the lower end of the
    95 % interval counts."""
    audit: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the responses that the first judge is sure of which the second reads, too; drawn by a hash of the
    response."""


class CascadeJudge:
    """Judge that asks a second judge where the first is unsure, and on a random part of the rest."""

    kind = "cascade"

    def __init__(
        self, file: CascadeFile, first: tuple[Judge, str], second: tuple[Judge, str], threshold: float
    ) -> None:
        """Create the judge from the content of its file, its two judges with their sources, and the threshold."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.first, self.second = first[0], second[0]
        self.threshold = threshold
        self.audit = file.audit
        self.fields = self.first.fields | self.second.fields
        self.reserved = self.first.reserved & self.second.reserved
        self.identity = digest(
            {
                "name": file.name,
                "version": file.version,
                "behaviours": file.behaviours,
                "first": self.first.identity,
                "second": self.second.identity,
                "threshold": threshold,
                "audit": file.audit,
            }
        )
        model = self.second.details.get("model")
        self.details: Mapping[str, JsonValue] = {
            "first": describe_judge(*first).as_json(),
            "second": describe_judge(*second).as_json(),
            "threshold": threshold,
            "audit": file.audit,
            **({"model": model} if model is not None else {}),
        }

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the second judge's verdicts where it was asked, and the first's elsewhere.

        Raises:
            JudgeUnavailable: a judge could not be reached; the answers so far are cached.
            UserError: a judge cannot work as it is configured.
        """
        firsts = await self.first.judge(cases, lambda steps: None)
        stages = [self._stage(case, verdict) for case, verdict in zip(cases, firsts, strict=True)]
        asked = [at for at, stage in enumerate(stages) if stage != "first"]
        count(len(cases) - len(asked))
        answers = await self.second.judge([cases[at] for at in asked], count) if asked else []
        verdicts = dict(zip(asked, answers, strict=True))
        return [
            _combined(first, stage, verdicts.get(at))
            for at, (first, stage) in enumerate(zip(firsts, stages, strict=True))
        ]

    def _stage(self, case: Case, verdict: Verdict) -> Literal["first", "second", "audit"]:
        probability = 0.0
        if verdict.behaviour is not None:
            probability = (verdict.probabilities or {}).get(verdict.behaviour, 0.0)
        if probability < self.threshold:
            return "second"
        return "audit" if _share(case) < self.audit else "first"


def _combined(first: Verdict, stage: Literal["first", "second", "audit"], second: Verdict | None) -> Verdict:
    probability = None
    if first.behaviour is not None and first.probabilities is not None:
        probability = first.probabilities.get(first.behaviour)
    record = FirstVerdict(first.behaviour, probability, stage)
    if second is None or (stage == "audit" and second.behaviour is None):  # an audit that failed is none
        return replace(first, first=replace(record, stage="first"), call=second.call if second else first.call)
    return replace(second, first=record)


def _share(case: Case) -> float:
    """Return a number in [0, 1) that follows from the case, as if it were drawn at random."""
    name = digest([case.prompt, case.response, case.fields])
    return int(hashlib.sha256(f"audit/{name}".encode()).hexdigest()[:13], 16) / 16**13


FILE_MODEL = CascadeFile


def make(file: CascadeFile, path: Path, options: JudgeOptions) -> CascadeJudge:
    """Return the judge that a file defines; the options are for the second judge.

    Raises:
        UserError: a judge could not be loaded or has other behaviours, the first gives no probabilities, or no
            threshold follows from its card.
    """
    from cst_bench.judging.find import find_judge, judge_name, load_judge, read_judge_file

    sources = find_judge(file.first, beside=path), find_judge(file.second, beside=path)
    for source in sources:
        if read_judge_file(source).kind == CascadeJudge.kind:
            raise UserError(f"{path}: {judge_name(source)} is a cascade itself: name its judges instead")
    first = in_terms_of(load_judge(str(sources[0]), options=JudgeOptions(cache=options.cache)), file.behaviours)
    second = in_terms_of(load_judge(str(sources[1]), options=options), file.behaviours)
    for judge in (first, second):
        if set(judge.behaviours) != set(file.behaviours):
            raise UserError(
                f"{path}: the cascade judges {', '.join(file.behaviours)}, and {judge.name} "
                f"{', '.join(judge.behaviours)}"
            )
    threshold = file.threshold if file.threshold is not None else _threshold(file, path, first, sources[0])
    return CascadeJudge(file, (first, judge_name(sources[0])), (second, judge_name(sources[1])), threshold)


def _threshold(file: CascadeFile, path: Path, first: Judge, source: Path) -> float:
    """Return the least threshold at which the card of the first judge has the wanted accuracy."""
    from cst_bench.judging.card import find_card

    unreadable: list[str] = []
    card = find_card(first.identity, source, unreadable.append)
    if card is None or not card.selective:
        reason = "has no calibration card" if card is None else "has a card without probabilities"
        raise UserError(
            f"{path}: {first.name} {reason} to take a threshold from: run `cst-bench judge calibrate "
            f"{file.first}`, or set threshold" + "".join(f"; {note}" for note in unreadable)
        )
    for point in card.selective:
        if point.right.interval is not None and point.right.interval[0] >= file.accuracy:
            return point.threshold
    raise UserError(
        f"{path}: at no threshold is {first.name} right on its card {card.labels.name} with {file.accuracy:.0%} or "
        "more (lower end of the 95 % interval): lower accuracy, or set threshold"
    )
