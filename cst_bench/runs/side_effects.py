"""Lengths and faults of responses, and KL divergences: what training may have moved beside what was asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.judging import NEITHER
from cst_bench.record import SHARES, SideEffect, SideEffectName
from cst_bench.statistics.bootstrap import mean_of_clusters
from cst_bench.statistics.intervals import clustered_share, wilson

Values = Mapping[str, Mapping[SideEffectName, Mapping[str, Sequence[float]]]]
"""Configuration (`none`: no system prompt) → measure → prompt id → value of each response."""


def response_values(outcomes: Iterable[Outcome]) -> Values:
    """Return what is known of each response of a task; unknown values are left out."""
    values: dict[str, dict[SideEffectName, dict[str, list[float]]]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.configuration, outcome.prompt_id)):
        of_configuration = values.setdefault(outcome.configuration, {})
        for name, read in _READ.items():
            value = read(outcome)
            if value is not None:
                of_configuration.setdefault(name, {}).setdefault(outcome.prompt_id, []).append(float(value))
    return values


def all_values(outcomes: Mapping[str, Iterable[Outcome]], divergences: Mapping[str, Values]) -> dict[str, Values]:
    """Return task → what is known of each of its responses, with the KL divergences of the tasks that have them."""
    values: dict[str, Values] = {}
    for task, responses in outcomes.items():
        own, divergence = response_values(responses), divergences.get(task, {})
        values[task] = {
            name: {**own.get(name, {}), **divergence.get(name, {})} for name in dict.fromkeys([*own, *divergence])
        }
    return values


def _degenerate(outcome: Outcome) -> bool | None:
    if outcome.repeated is None:  # its verdict was made without the check
        return None
    return outcome.behaviour == NEITHER and outcome.reason is not None


_READ: Mapping[SideEffectName, Callable[[Outcome], float | None]] = {
    "tokens": lambda outcome: outcome.tokens,
    "words": lambda outcome: outcome.words,
    "cut_off": lambda outcome: outcome.cut_off,
    "repeated": lambda outcome: outcome.repeated,
    "degenerate": _degenerate,
}


def side_effects(values: Values) -> dict[str, dict[SideEffectName, SideEffect]]:
    """Return configuration → measure → its mean and interval."""
    return {
        configuration: {name: _side_effect(name, by_prompt) for name, by_prompt in by_name.items()}
        for configuration, by_name in values.items()
        if by_name
    }


def prompt_means(values: Values) -> dict[str, dict[SideEffectName, dict[str, float]]]:
    """Return configuration → measure → prompt id → mean over its responses."""
    return {
        configuration: {
            name: {prompt: statistics.fmean(responses) for prompt, responses in by_prompt.items()}
            for name, by_prompt in by_name.items()
        }
        for configuration, by_name in values.items()
        if by_name
    }


def _side_effect(name: SideEffectName, by_prompt: Mapping[str, Sequence[float]]) -> SideEffect:
    means = [statistics.fmean(responses) for responses in by_prompt.values()]
    n = sum(map(len, by_prompt.values()))
    if name in SHARES:
        mean = statistics.fmean(means)
        interval = wilson(sum(means), n) if n == len(means) else clustered_share(means, n)
    else:
        estimate = mean_of_clusters(means)
        assert estimate.value is not None  # a measure without a value is left out
        mean, interval = estimate.value, estimate.interval
    return SideEffect(mean=mean, interval=interval, median=statistics.median(means), prompts=len(means), n=n)
