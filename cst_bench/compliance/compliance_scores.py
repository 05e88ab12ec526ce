"""Compliance scores from behaviours: what `scores.json`, Inspect's metrics and every report are computed from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.judging import NEITHER, FirstVerdict
from cst_bench.record import ConfigurationScore, ReferenceCounts, Score, TaskScores
from cst_bench.statistics.intervals import wilson


@dataclass(frozen=True)
class Outcome:
    """What one response did, beside what was asked."""

    prompt_id: str
    configuration: str
    asked: str | None
    """The behaviour that the configuration asks for; None with no system prompt."""
    behaviour: str | None
    """The behaviour that the judge saw; None is unscored."""
    reason: str | None = None
    """Why it is unscored, or what the check for degenerate responses found."""
    cut_off: bool | None = None
    """Whether the response ended at the token limit; None if unknown."""
    repeated: bool | None = None
    """Whether the response or its end repeats itself; None if verdicts were made without its text."""
    first: FirstVerdict | None = None
    """What the first judge of a cascade said; None for other judges, and where no judge was asked."""

    @property
    def complied(self) -> bool | None:
        """Return whether the response does what was asked; None if unscored or if nothing was asked."""
        if self.behaviour is None or self.asked is None:
            return None
        return self.behaviour == self.asked


def share(values: Sequence[bool | None]) -> Score:
    """Return the share of True among values, None being unscored and left out of n, with Wilson's 95 % interval."""
    scored = [value for value in values if value is not None]
    return Score(
        score=sum(scored) / len(scored) if scored else None,
        n=len(scored),
        unscored=len(values) - len(scored),
        interval=wilson(sum(scored), len(scored)),
    )


def summarise(outcomes: Iterable[Outcome], configurations: Sequence[str]) -> TaskScores:
    """Compute the scores of one task: each configuration, joint compliance, and the counts with no system prompt.

    Joint compliance is the share of prompts on which the model complies under every configuration; a prompt with an
    unscored response is itself unscored. It is None for a task with one configuration.
    """
    by_configuration: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for outcome in outcomes:
        by_configuration[outcome.configuration][outcome.prompt_id] = outcome
    scores = {name: _configuration_score(list(by_configuration[name].values())) for name in configurations}
    joint = None
    if len(configurations) > 1:
        prompts = sorted({prompt for name in configurations for prompt in by_configuration[name]})
        joint = share([_joint([by_configuration[name].get(prompt) for name in configurations]) for prompt in prompts])
    reference = None
    if by_configuration[REFERENCE]:
        responses = list(by_configuration[REFERENCE].values())
        scored = sum(outcome.behaviour is not None for outcome in responses)
        reference = ReferenceCounts(n=scored, unscored=len(responses) - scored, behaviours=_behaviour_counts(responses))
    return TaskScores(configurations=scores, joint=joint, reference=reference)


def _configuration_score(outcomes: Sequence[Outcome]) -> ConfigurationScore:
    score = share([outcome.complied for outcome in outcomes])
    return ConfigurationScore(
        **dict(score),
        behaviours=_behaviour_counts(outcomes),
        reasons=_reason_counts(outcomes),
        degenerate=dict(sorted(Counter(o.reason for o in outcomes if o.behaviour == NEITHER and o.reason).items())),
        cut_off=_count([outcome.cut_off for outcome in outcomes]),
        repeated=_count([outcome.repeated for outcome in outcomes]),
    )


def _count(values: Sequence[bool | None]) -> int | None:
    """Return the number of True among values; None if all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _joint(outcomes: Sequence[Outcome | None]) -> bool | None:
    values = [outcome.complied if outcome is not None else None for outcome in outcomes]
    if None in values:
        return None
    return all(values)


def _behaviour_counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(o.behaviour for o in outcomes if o.behaviour is not None).items()))


def _reason_counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(str(o.reason) for o in outcomes if o.behaviour is None).items()))
