"""Judges of kind `panel`: several judges asked the same, and one verdict of their votes.

By `majority` each scored verdict is a vote. By `weighted` a vote has the member's weight from the file, or, if the file
gives none, what the member's calibration card makes of it: naive Bayes on the card's confusion counts, so that a member
that is often wrong about one behaviour counts little when it says that one. An unscored member has no vote; a tie, or
fewer votes than the quorum, is unscored.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import NEITHER, Case, Judge, JudgeOptions, Spent, Verdict

TIED = "the panel is tied"
TOO_FEW = "too few of the panel's judges gave a verdict"
_SMOOTHING = 0.5
"""Added to each count of a confusion matrix, so that what was never seen is not impossible."""


class Member(Content):
    """A judge of the panel; in the file a name alone will do."""

    judge: str
    """By name or path, as for `--judge`; a path may be relative to the panel's file."""
    model: str | None = None
    """Another model than the judge's own, as for `--judge-model`."""
    base_url: str | None = None
    """As for `--judge-base-url`."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of its vote, for `vote: weighted`; given for all members or for none."""

    @model_validator(mode="before")
    @classmethod
    def _named_only(cls, value: Any) -> Any:
        return {"judge": value} if isinstance(value, str) else value


class PanelFile(Content):
    """A judge file of kind `panel`."""

    name: str
    version: Annotated[int, Field(ge=1)]
    kind: Literal["panel"]
    description: str
    behaviours: list[str] = Field(min_length=1)
    """Those of every member."""
    members: list[Member] = Field(min_length=2)
    vote: Literal["majority", "weighted"]
    quorum: Annotated[int, Field(ge=1)] | None = None
    """Fewest members that must give a verdict; more than half if not given."""
    changelog: dict[int, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> PanelFile:
        weights = [member.weight for member in self.members]
        if self.vote == "majority" and any(weight is not None for weight in weights):
            raise ValueError("weights are for vote: weighted")
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError("give every member a weight, or none: then their calibration cards weigh them")
        if self.quorum is not None and self.quorum > len(self.members):
            raise ValueError(f"quorum {self.quorum} is more than the {len(self.members)} members")
        return self


Counts = Mapping[str, Mapping[str, float]]
"""A confusion matrix: label to verdict to count."""


@dataclass(frozen=True)
class Seat:
    """A member at the table."""

    name: str
    judge: Judge
    weight: float = 1.0
    counts: Counts | None = None
    """Of its calibration, where that weighs its votes."""

    def evidence(self, verdict: str, label: str) -> float:
        """log P(verdict | label), by the member's calibration with half a count added to each cell."""
        assert self.counts is not None
        row = self.counts[label]
        return math.log((row.get(verdict, 0) + _SMOOTHING) / (sum(row.values()) + _SMOOTHING * len(row)))


class PanelJudge:
    """Several judges as one."""

    kind = "panel"

    def __init__(self, file: PanelFile, seats: Sequence[Seat]) -> None:
        """From the content of a judge file and its members, in the file's order."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.fields = frozenset[str]().union(*(seat.judge.fields for seat in seats))
        self.seats = tuple(seats)
        self.vote = file.vote
        self.quorum = file.quorum or len(seats) // 2 + 1
        self._labels = _labels(self.behaviours, seats)
        voters = [{"sha256": seat.judge.identity, "weight": seat.weight, "counts": seat.counts} for seat in seats]
        file_part = file.model_dump(mode="json", exclude={"members", "quorum"})
        self.identity = digest({"file": file_part, "quorum": self.quorum, "members": voters})
        self.details: Mapping[str, Any] = {
            "vote": self.vote,
            "quorum": self.quorum,
            "members": [
                {
                    "name": seat.name,
                    "version": seat.judge.version,
                    "kind": seat.judge.kind,
                    "sha256": seat.judge.identity,
                    **seat.judge.details,
                }
                for seat in seats
            ],
        }

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """The panel's verdicts.

        Raises:
            JudgeUnavailable: a member could not be had; the others have been asked, and keep what they said if they
                keep anything.
            UserError: a member can't work as it is set up.
        """
        return self.combine(await self.members_judge(cases, count))

    async def members_judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[list[Verdict]]:
        """What each member says of the cases, in the members' order; they are asked at the same time.

        Raises:
            JudgeUnavailable: as `judge`.
            UserError: as `judge`.
        """
        counter = _SlowestCount(len(self.seats), count)
        found = await asyncio.gather(
            *(seat.judge.judge(cases, counter.of(index)) for index, seat in enumerate(self.seats)),
            return_exceptions=True,  # so that the others are not cut short when one fails
        )
        failures = [one for one in found if isinstance(one, BaseException)]
        for failure in sorted(failures, key=lambda error: not isinstance(error, UserError)):
            raise failure
        return [one for one in found if not isinstance(one, BaseException)]

    def combine(self, columns: Sequence[Sequence[Verdict]]) -> list[Verdict]:
        """The panel's verdicts from those of its members, `columns` being in the members' order."""
        return [self._combined(row) for row in zip(*columns, strict=True)]

    def _combined(self, row: Sequence[Verdict]) -> Verdict:
        spent = _summed([one.spent for one in row if one.spent is not None])
        votes = [(seat, one.behaviour) for seat, one in zip(self.seats, row) if one.behaviour is not None]
        reasons = {one.reason for one in row}
        if not votes and len(reasons) == 1:
            return Verdict(None, reasons.pop(), spent=spent)
        if len(votes) < self.quorum:
            return Verdict(None, TOO_FEW, spent=spent)
        if self._labels is not None:
            return replace(_posterior(votes, self._labels), spent=spent)
        weights: dict[str, float] = {}
        for seat, behaviour in votes:
            weights[behaviour] = weights.get(behaviour, 0.0) + seat.weight
        return replace(_greatest(weights), spent=spent)


class _SlowestCount:
    """Tells how many cases all members are done with."""

    def __init__(self, members: int, count: Callable[[int], None]) -> None:
        self._done = [0] * members
        self._told = 0
        self._count = count

    def of(self, member: int) -> Callable[[int], None]:
        """The `count` of one member."""

        def done(steps: int) -> None:
            self._done[member] += steps
            new = min(self._done) - self._told
            if new > 0:
                self._told += new
                self._count(new)

        return done


def _labels(behaviours: Sequence[str], seats: Sequence[Seat]) -> tuple[str, ...] | None:
    """What the evidence of calibrations can be for: `neither`, too, if all were calibrated on some. None if unused."""
    counts = [seat.counts for seat in seats if seat.counts is not None]
    if not counts:
        return None
    known = all(sum(one.get(NEITHER, {}).values()) > 0 for one in counts)
    return (*behaviours, NEITHER) if known else tuple(behaviours)


def _posterior(votes: Sequence[tuple[Seat, str]], labels: Sequence[str]) -> Verdict:
    """The label that the votes speak for most, all being as likely before: the labels' prevalence is not the run's."""
    scores = {label: sum(seat.evidence(behaviour, label) for seat, behaviour in votes) for label in labels}
    most = max(scores.values())
    shares = {label: math.exp(score - most) for label, score in scores.items()}
    total = sum(shares.values())
    return replace(_greatest(scores), probabilities={label: share / total for label, share in shares.items()})


def _greatest(scores: Mapping[str, float]) -> Verdict:
    """The behaviour with the most, unscored if two have it."""
    first, *rest = sorted(scores, key=lambda name: -scores[name])
    if rest and math.isclose(scores[first], scores[rest[0]], rel_tol=1e-9, abs_tol=1e-9):
        return Verdict(None, TIED)
    return Verdict(first)


def _summed(spent: Sequence[Spent]) -> Spent | None:
    """What members spent now; what they had spent before, if none spent anything now."""
    counted = [one for one in spent if not one.cached] or spent
    if not counted:
        return None
    costs = [one.cost for one in counted]
    return Spent(
        sum(one.input_tokens for one in counted),
        sum(one.output_tokens for one in counted),
        None if None in costs else sum(cost for cost in costs if cost is not None),
        cached=all(one.cached for one in spent),
    )


SCHEMA = PanelFile


def make(file: PanelFile, path: Path, options: JudgeOptions) -> PanelJudge:
    """The judge of a file, its members loaded.

    Raises:
        UserError: a member can't be loaded, has other behaviours, is there twice or a panel itself, has no calibration
            card that its vote could be weighted by; or a model or endpoint is given for the panel.
    """
    if options.model is not None or options.base_url is not None:
        raise UserError(f"judge {file.name} is a panel: give its members' models and endpoints in {path}, as `model:`")
    seats = [_seat(member, path, options) for member in file.members]
    for seat in seats:
        if set(seat.judge.behaviours) != set(file.behaviours):
            raise UserError(
                f"{path}: the panel judges {', '.join(file.behaviours)}, and its member {seat.name} "
                f"{', '.join(seat.judge.behaviours)}"
            )
    identities = [seat.judge.identity for seat in seats]
    for seat in seats:
        if identities.count(seat.judge.identity) > 1:
            raise UserError(f"{path}: {seat.name} is in the panel twice: its error would count twice")
    if file.vote == "weighted" and file.members[0].weight is None:
        seats = [_calibrated(seat, member, path) for seat, member in zip(seats, file.members)]
    return PanelJudge(file, _named_apart(seats))


def _seat(member: Member, path: Path, options: JudgeOptions) -> Seat:
    from cst_bench.judging.find import describe, find_judge, load_judge

    found = find_judge(member.judge, beside=path)
    if describe(found)["kind"] == PanelJudge.kind:
        raise UserError(f"{path}: its member {member.judge} is a panel itself: name that one's members in its place")
    judge = load_judge(str(found), options=replace(options, model=member.model, base_url=member.base_url))
    return Seat(judge.name, judge, 1.0 if member.weight is None else member.weight)


def _calibrated(seat: Seat, member: Member, path: Path) -> Seat:
    from cst_bench.judging.card import find_card
    from cst_bench.judging.find import find_judge, judge_name

    found = find_judge(member.judge, beside=path)
    card = find_card(seat.judge.identity, found)
    if card is None:
        asked = f"{judge_name(found)} --judge-model {member.model}" if member.model else judge_name(found)
        raise UserError(
            f"{path}: vote: weighted weighs members by their calibration, and {seat.name} has no card: run "
            f"`cst-bench judge calibrate {asked}`, or give every member a weight"
        )
    names, matrix = card["confusion"]["behaviours"], card["confusion"]["matrix"]
    counts = {label: dict(zip(names, map(float, row), strict=True)) for label, row in zip(names, matrix, strict=True)}
    for behaviour in seat.judge.behaviours:
        if not sum(counts[behaviour].values()):
            raise UserError(
                f"{path}: the card of {seat.name} is on no label {behaviour!r}, so that its vote can't be weighed: "
                f"calibrate it on labels that have all its behaviours, or give every member a weight"
            )
    return replace(seat, counts=counts)


def _named_apart(seats: Sequence[Seat]) -> list[Seat]:
    """Members of one judge file that ask different models are called by these, too."""
    names = [seat.name for seat in seats]
    return [
        replace(seat, name=f"{seat.name} ({seat.judge.details.get('model', seat.judge.identity[:8])})")
        if names.count(seat.name) > 1
        else seat
        for seat in seats
    ]
