"""Judges of kind `panel`: several judges judge the same cases, and their votes give one verdict.

With `vote: majority` each scored verdict is a vote. With `vote: weighted` a vote has the member's weight from the file,
or, if the file gives none, the weight that follows from the member's calibration card: naive Bayes on the card's
confusion counts, so that a member that is often wrong about one behaviour counts little when it says that one. An
unscored member has no vote; a tie, or fewer votes than the quorum, is unscored.

A member that cannot say `neither` or `incapable`, as a guard or a list of refusal phrases, has no say in whether a
response shows that: when another member says it, the vote is among the members that decide on it (the others still
count for the quorum). No member is asked about a degenerate response.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import (
    NEITHER,
    RESERVED,
    Case,
    Judge,
    JudgeCall,
    JudgeFile,
    JudgeOptions,
    Verdict,
    describe_judge,
    sum_costs,
)

TIED = "the panel is tied"
TOO_FEW = "too few of the panel's judges gave a verdict"
_GIVEN = ("max_tokens", "reasoning_effort")
"""Options that a panel hands on to its members, and by which it is loaded again."""
_SMOOTHING = 0.5
"""Added to each count of a confusion matrix, so that an unseen combination is not impossible."""


class MemberEntry(Content):
    """Member of a panel, as its file names it; a name alone is short for `judge: NAME`."""

    judge: str
    """Name or path, as for `--judge`; a path may be relative to the panel's file."""
    model: str | None = None
    """Model to use instead of the judge's own, as for `--judge-model`."""
    base_url: str | None = None
    """As for `--judge-base-url`."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Weight of its vote, for `vote: weighted`; given for all members or for none."""


def _from_name(value: object) -> object:
    return {"judge": value} if isinstance(value, str) else value


class PanelFile(JudgeFile):
    """Judge file of kind `panel`."""

    kind: Literal["panel"]
    """Several judges vote."""
    behaviours: list[str] = Field(min_length=1)
    """Behaviours, the same for every member."""
    members: list[Annotated[MemberEntry, BeforeValidator(_from_name, json_schema_input_type=str | MemberEntry)]] = (
        Field(min_length=2)
    )
    """Judges that vote, at least two."""
    vote: Literal["majority", "weighted"]
    """`weighted`: by the members' weights, or by their calibration cards if none has a weight."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """Fewest members that must give a verdict; more than half if None."""

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
"""Confusion matrix: label → verdict → count."""


@dataclass(frozen=True)
class PanelMember:
    """Judge that votes in a panel."""

    name: str
    judge: Judge
    source: str
    """Name of the judge, or path of its file."""
    weight: float = 1.0
    counts: Counts | None = None
    """Confusion matrix of its calibration, if that weighs its votes."""

    def evidence(self, verdict: str, label: str) -> float:
        """Return log P(verdict | label) by the member's calibration, with half a count added to each cell."""
        assert self.counts is not None
        row = self.counts[label]
        return math.log((row.get(verdict, 0) + _SMOOTHING) / (sum(row.values()) + _SMOOTHING * len(row)))


class PanelJudge:
    """Judge that combines the verdicts of several."""

    kind = "panel"

    def __init__(self, file: PanelFile, members: Sequence[PanelMember]) -> None:
        """Create the judge from the content of its file and its members, in the file's order."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.fields = frozenset[str]().union(*(member.judge.fields for member in members))
        self.reserved = file.reserved(name for member in members for name in member.judge.reserved)
        self.members = tuple(members)
        self.vote = file.vote
        self.quorum = file.quorum or len(members) // 2 + 1
        self._labels = _labels(self.behaviours, members)
        voters = [
            {"sha256": member.judge.identity, "weight": member.weight, "counts": member.counts} for member in members
        ]
        self.identity = digest({"file": file.deciding(("members", "quorum")), "quorum": self.quorum, "members": voters})
        self.details: Mapping[str, JsonValue] = {
            "vote": self.vote,
            "quorum": self.quorum,
            "members": [describe_judge(member.judge, member.source).as_json() for member in members],
            **{name: value for member in members for name, value in member.judge.details.items() if name in _GIVEN},
        }

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the panel's verdicts.

        Raises:
            JudgeUnavailable: a member could not be reached; the others have been asked, and their answers are cached.
            UserError: a member cannot work as it is configured.
        """
        return self.combine(await self.member_verdicts(cases, count))

    async def member_verdicts(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[list[Verdict]]:
        """Return each member's verdicts on the cases, in the members' order; the members are asked concurrently.

        Raises:
            JudgeUnavailable: as `judge`.
            UserError: as `judge`.
        """
        counter = _SlowestCount(len(self.members), count)
        results = await asyncio.gather(
            *(member.judge.judge(cases, counter.member_count(index)) for index, member in enumerate(self.members)),
            return_exceptions=True,  # so that the others are not cancelled when one fails
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in sorted(failures, key=lambda error: not isinstance(error, UserError)):
            raise failure
        return [result for result in results if not isinstance(result, BaseException)]

    def combine(self, columns: Sequence[Sequence[Verdict]]) -> list[Verdict]:
        """Return the panel's verdicts, given those of its members (`columns`, in the members' order)."""
        return [self._combine(row) for row in zip(*columns, strict=True)]

    def _combine(self, row: Sequence[Verdict]) -> Verdict:
        call = _sum_calls([verdict.call for verdict in row if verdict.call is not None])
        votes = [
            (member, verdict.behaviour) for member, verdict in zip(self.members, row) if verdict.behaviour is not None
        ]
        reasons = {verdict.reason for verdict in row}
        if not votes and len(reasons) == 1:
            return Verdict(None, reasons.pop(), call=call)
        if len(votes) < self.quorum:
            return Verdict(None, TOO_FEW, call=call)
        given = {behaviour for _, behaviour in votes if behaviour in RESERVED}
        if self._labels is not None and given <= set(self._labels):
            return replace(_posterior(votes, self._labels), call=call)
        votes = [(member, behaviour) for member, behaviour in votes if given <= member.judge.reserved]
        weights: dict[str, float] = {}
        for member, behaviour in votes:
            weights[behaviour] = weights.get(behaviour, 0.0) + member.weight
        return replace(_greatest(weights), call=call)


class _SlowestCount:
    """Counter of the cases that all members are done with."""

    def __init__(self, members: int, count: Callable[[int], None]) -> None:
        self._done = [0] * members
        self._reported = 0
        self._count = count

    def member_count(self, member: int) -> Callable[[int], None]:
        """Return the `count` for one member."""

        def add(steps: int) -> None:
            self._done[member] += steps
            new = min(self._done) - self._reported
            if new > 0:
                self._reported += new
                self._count(new)

        return add


def _labels(behaviours: Sequence[str], members: Sequence[PanelMember]) -> tuple[str, ...] | None:
    """Return the labels to weigh evidence for: with `neither` if all cards have such labels. None without cards."""
    matrices = [member.counts for member in members if member.counts is not None]
    if not matrices:
        return None
    known = all(sum(counts.get(NEITHER, {}).values()) > 0 for counts in matrices)
    return (*behaviours, NEITHER) if known else tuple(behaviours)


def _posterior(votes: Sequence[tuple[PanelMember, str]], labels: Sequence[str]) -> Verdict:
    """Return the most probable label given the votes, under a uniform prior: the labels' prevalence isn't the run's."""
    scores = {label: sum(member.evidence(behaviour, label) for member, behaviour in votes) for label in labels}
    highest = max(scores.values())
    shares = {label: math.exp(score - highest) for label, score in scores.items()}
    total = sum(shares.values())
    return replace(_greatest(scores), probabilities={label: share / total for label, share in shares.items()})


def _greatest(scores: Mapping[str, float]) -> Verdict:
    """Return the behaviour with the greatest score, unscored if two have it."""
    first, *rest = sorted(scores, key=lambda name: -scores[name])
    if rest and math.isclose(scores[first], scores[rest[0]], rel_tol=1e-9, abs_tol=1e-9):
        return Verdict(None, TIED)
    return Verdict(first)


def _sum_calls(calls: Sequence[JudgeCall]) -> JudgeCall | None:
    """Return the sum of the members' new calls, or of their cached ones if none is new."""
    counted = [call for call in calls if not call.cached] or calls
    if not counted:
        return None
    return JudgeCall(
        sum(call.input_tokens for call in counted),
        sum(call.output_tokens for call in counted),
        sum_costs(counted),
        cached=all(call.cached for call in calls),
        notes=tuple(sorted({note for call in counted for note in call.notes})),
        served=tuple(sorted({name for call in counted for name in call.served})),
    )


FILE_MODEL = PanelFile


def make(file: PanelFile, path: Path, options: JudgeOptions) -> PanelJudge:
    """Return the judge that a file defines, its members loaded.

    Raises:
        UserError: a member could not be loaded, has other behaviours, is named twice, is a panel itself, or has no
            calibration card to weigh its vote by; or the options name a model or an endpoint.
    """
    if options.model is not None or options.base_url is not None:
        raise UserError(f"judge {file.name} is a panel: give its members' models and endpoints in {path}, as `model:`")
    members = [_load_member(entry, path, options) for entry in file.members]
    for member in members:
        if set(member.judge.behaviours) != set(file.behaviours):
            raise UserError(
                f"{path}: the panel judges {', '.join(file.behaviours)}, and its member {member.name} "
                f"{', '.join(member.judge.behaviours)}"
            )
    identities = [member.judge.identity for member in members]
    for member in members:
        if identities.count(member.judge.identity) > 1:
            raise UserError(f"{path}: {member.name} is in the panel twice: its error would count twice")
    if file.vote == "weighted" and file.members[0].weight is None:
        members = [_with_counts(member, entry, path) for member, entry in zip(members, file.members)]
    return PanelJudge(file, _with_distinct_names(members))


def _load_member(entry: MemberEntry, path: Path, options: JudgeOptions) -> PanelMember:
    from cst_bench.judging.find import find_judge, judge_name, load_judge, read_judge_file

    source = find_judge(entry.judge, beside=path)
    if read_judge_file(source).kind == PanelJudge.kind:
        raise UserError(f"{path}: its member {entry.judge} is a panel itself: name the members of that panel instead")
    judge = load_judge(str(source), options=replace(options, model=entry.model, base_url=entry.base_url))
    return PanelMember(judge.name, judge, judge_name(source), 1.0 if entry.weight is None else entry.weight)


def _with_counts(member: PanelMember, entry: MemberEntry, path: Path) -> PanelMember:
    """Return a member with the confusion counts of its calibration card."""
    from cst_bench.judging.card import find_card
    from cst_bench.judging.find import find_judge

    unreadable: list[str] = []
    card = find_card(member.judge.identity, find_judge(entry.judge, beside=path), unreadable.append)
    if card is None:
        arguments = f"{member.source} --judge-model {entry.model}" if entry.model else member.source
        raise UserError(
            f"{path}: vote: weighted weighs members by their calibration, and {member.name} has no card: run "
            f"`cst-bench judge calibrate {arguments}`, or give every member a weight"
            + "".join(f"; {note}" for note in unreadable)
        )
    names, matrix = card.confusion.behaviours, card.confusion.matrix
    counts = {label: dict(zip(names, map(float, row), strict=True)) for label, row in zip(names, matrix, strict=True)}
    for behaviour in member.judge.behaviours:
        if not sum(counts.get(behaviour, {}).values()):
            raise UserError(
                f"{path}: the card of {member.name} has no label {behaviour!r}, so its vote cannot be weighed: "
                f"calibrate it on labels that have all its behaviours, or give every member a weight"
            )
    return replace(member, counts=counts)


def _with_distinct_names(members: Sequence[PanelMember]) -> list[PanelMember]:
    """Add the model to the names of members that share a judge file and ask different models."""
    names = [member.name for member in members]
    return [
        replace(member, name=f"{member.name} ({member.judge.details.get('model', member.judge.identity[:8])})")
        if names.count(member.name) > 1
        else member
        for member in members
    ]
