"""Compliance scores from behaviours: what `scores.json`, Inspect's metrics and every report are computed from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cst_bench.compliance.compliance_task import REFERENCE


@dataclass(frozen=True)
class Outcome:
    """What one response did, beside what was asked."""

    prompt_id: str
    configuration: str
    asked: str | None
    """The behaviour that the configuration asks for; None in the reference arm."""
    behaviour: str | None
    """What the judge says that the response shows; None is unscored."""
    reason: str | None = None
    """Why it is unscored."""

    @property
    def complied(self) -> bool | None:
        """Whether the response does what was asked; None if unscored or if nothing was asked."""
        if self.behaviour is None or self.asked is None:
            return None
        return self.behaviour == self.asked


def wilson(successes: int, n: int) -> list[float] | None:
    """95 % Wilson score interval of a share (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    # rounding can put an end that is the share itself one digit past it
    return [min(float(low), successes / n), max(float(high), successes / n)]


def share(values: Sequence[bool | None]) -> dict[str, Any]:
    """Score, n, unscored and interval of a list of outcomes, None being unscored and left out of n."""
    scored = [value for value in values if value is not None]
    return {
        "score": sum(scored) / len(scored) if scored else None,
        "n": len(scored),
        "unscored": len(values) - len(scored),
        "interval": wilson(sum(scored), len(scored)),
    }


def summarise(outcomes: Iterable[Outcome], configurations: Sequence[str]) -> dict[str, Any]:
    """The scores of one task: each configuration, joint compliance, and the reference arm.

    Joint compliance is the share of prompts on which the model complies under every configuration; a prompt with an
    unscored response is itself unscored. It is None for a task with one configuration.
    """
    arms: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for outcome in outcomes:
        arms[outcome.configuration][outcome.prompt_id] = outcome
    summary: dict[str, Any] = {}
    for name in configurations:
        of = list(arms[name].values())
        summary[name] = {
            **share([outcome.complied for outcome in of]),
            "behaviours": _behaviours(of),
            "reasons": _reasons(of),
        }
    if len(configurations) > 1:
        prompts = sorted({prompt for name in configurations for prompt in arms[name]})
        summary["joint"] = share([_joint([arms[name].get(prompt) for name in configurations]) for prompt in prompts])
    if arms[REFERENCE]:
        of = list(arms[REFERENCE].values())
        scored = sum(outcome.behaviour is not None for outcome in of)
        summary["reference"] = {"n": scored, "unscored": len(of) - scored, "behaviours": _behaviours(of)}
    return summary


def _joint(outcomes: Sequence[Outcome | None]) -> bool | None:
    values = [outcome.complied if outcome is not None else None for outcome in outcomes]
    if None in values:
        return None
    return all(values)


def _behaviours(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(o.behaviour for o in outcomes if o.behaviour is not None).items()))


def _reasons(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(str(o.reason) for o in outcomes if o.behaviour is None).items()))
