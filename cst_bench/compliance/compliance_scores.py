"""Compliance scores from behaviours: what `scores.json`, Inspect's metrics and every report are computed from."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.judging import NEITHER, FirstVerdict
from cst_bench.record import ConfigurationScore, ReferenceCounts, Score, TaskScores
from cst_bench.statistics.intervals import Interval, clustered_share, wilson


@dataclass(frozen=True, slots=True)
class Outcome:
    """Behaviour of one response, beside the behaviour that was asked for."""

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
    words: int | None = None
    """Words of the response, without thoughts; None if verdicts were made without its text."""
    tokens: int | None = None
    """Tokens of the response, without thoughts; None if unknown."""
    first: FirstVerdict | None = None
    """Verdict of the first judge of a cascade; None for other judges, and where no judge was asked."""
    wording: str | None = None
    """Wording of the system prompt, in a run with several."""
    epoch: int = 1
    """Number of the response among those to the same prompt, configuration and wording."""

    @property
    def complied(self) -> bool | None:
        """Return whether the response does what was asked; None if unscored or if nothing was asked."""
        if self.behaviour is None or self.asked is None:
            return None
        return self.behaviour == self.asked


Responses = Sequence[bool | None]
"""Whether each response to one prompt complied; None is unscored."""


def share(prompts: Sequence[Responses]) -> Score:
    """Return the share of responses that comply, averaged within each prompt, then over prompts.

    Unscored responses are left out; a prompt without a scored one is left out of the score. The interval is Wilson's,
    clustered by prompt. `bounds` are the scores if all unscored responses failed, or if all complied.

    Args:
        prompts: The responses to each prompt.
    """
    scored = [kept for responses in prompts if (kept := [value for value in responses if value is not None])]
    shares = [sum(responses) / len(responses) for responses in scored]
    n = sum(map(len, scored))
    unscored = sum(map(len, prompts)) - n
    repeated = any(len(responses) > 1 for responses in prompts)
    return Score(
        score=sum(shares) / len(shares) if shares else None,
        n=n,
        unscored=unscored,
        interval=clustered_share(shares, n) if repeated else wilson(sum(shares), len(shares)),
        prompts=len(shares) if repeated else None,
        bounds=_bounds([[responses] for responses in prompts]) if unscored else None,
    )


def _bounds(prompts: Sequence[Sequence[Responses]]) -> Interval:
    """Return the lowest and the highest score that unscored responses leave open.

    Args:
        prompts: For each prompt, the responses under each configuration that must all comply.
    """
    low = [math.prod(sum(v is True for v in values) / len(values) for values in each) for each in prompts]
    high = [math.prod(sum(v is not False for v in values) / len(values) for values in each) for each in prompts]
    return sum(low) / len(low), sum(high) / len(high)


def summarise(outcomes: Iterable[Outcome], configurations: Sequence[str]) -> TaskScores:
    """Compute the scores of one task: each configuration, joint compliance, and the counts with no system prompt.

    Joint compliance is the share of prompts on which the model complies under every configuration. With several
    responses to a prompt, it is the share of their combinations, one for each configuration, in which all comply. A
    prompt that has no scored response under some configuration is itself unscored. It is None for a task with one
    configuration.
    """
    by_configuration: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        by_configuration[outcome.configuration][outcome.prompt_id].append(outcome)
    ordered = {name: dict(sorted(by_prompt.items())) for name, by_prompt in by_configuration.items()}
    scores = {name: _configuration_score(ordered.get(name, {})) for name in configurations}
    joint = _joint([by_configuration[name] for name in configurations]) if len(configurations) > 1 else None
    reference = None
    if by_configuration[REFERENCE]:
        responses = [outcome for outcomes in by_configuration[REFERENCE].values() for outcome in outcomes]
        scored = sum(outcome.behaviour is not None for outcome in responses)
        reference = ReferenceCounts(n=scored, unscored=len(responses) - scored, behaviours=_behaviour_counts(responses))
    return TaskScores(configurations=scores, joint=joint, reference=reference)


def _configuration_score(by_prompt: Mapping[str, Sequence[Outcome]]) -> ConfigurationScore:
    outcomes = [outcome for responses in by_prompt.values() for outcome in responses]
    score = share([[outcome.complied for outcome in responses] for responses in by_prompt.values()])
    return ConfigurationScore(
        **dict(score),
        behaviours=_behaviour_counts(outcomes),
        reasons=_reason_counts(outcomes),
        degenerate=dict(sorted(Counter(o.reason for o in outcomes if o.behaviour == NEITHER and o.reason).items())),
        cut_off=_count([outcome.cut_off for outcome in outcomes]),
        repeated=_count([outcome.repeated for outcome in outcomes]),
        wordings=_by_wording(by_prompt),
    )


def _by_wording(by_prompt: Mapping[str, Sequence[Outcome]]) -> dict[str, float | None]:
    """Return the score of each wording; empty for a single one."""
    names = dict.fromkeys(o.wording for responses in by_prompt.values() for o in responses if o.wording is not None)
    if len(names) < 2:
        return {}
    return {
        name: share([[o.complied for o in responses if o.wording == name] for responses in by_prompt.values()]).score
        for name in names
    }


def _joint(by_configuration: Sequence[Mapping[str, Sequence[Outcome]]]) -> Score:
    prompts = sorted(set().union(*by_configuration))
    responses = [
        [[outcome.complied for outcome in outcomes.get(prompt, ())] or [None] for outcomes in by_configuration]
        for prompt in prompts
    ]
    repeated = any(len(values) > 1 for each in responses for values in each)
    scored = [[[value for value in values if value is not None] for values in each] for each in responses]
    complete = [each for each in scored if all(each)]
    shares = [math.prod(sum(kept) / len(kept) for kept in each) for each in complete]
    rounds = sum(min(map(len, each)) for each in complete)  # a response under each configuration, none twice
    unscored = len(prompts) - len(shares)
    return Score(
        score=sum(shares) / len(shares) if shares else None,
        n=len(shares),
        unscored=unscored,
        interval=clustered_share(shares, rounds) if repeated else wilson(sum(shares), len(shares)),
        bounds=_bounds(responses) if any(None in values for each in responses for values in each) else None,
    )


def _count(values: Sequence[bool | None]) -> int | None:
    """Return the number of True among values; None if all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _behaviour_counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(o.behaviour for o in outcomes if o.behaviour is not None).items()))


def _reason_counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(str(o.reason) for o in outcomes if o.behaviour is None).items()))
