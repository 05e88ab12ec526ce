"""Cost of generating and judging: tokens, calls, time and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from cst_bench.record.record_file import Record


class Usage(Record):
    """Tokens of generated responses, and how the responses ended."""

    input_tokens: int
    """Tokens of the prompts."""
    output_tokens: int
    """Tokens of the responses."""
    stop_reasons: dict[str, int] = Field(default_factory=dict)
    """Stop reason (`stop`, `max_tokens`, …) → number of responses."""
    thoughts: int | None = None
    """Responses with a thought, which was split off; None if there are none."""
    thought_tokens: int | None = None
    """Output tokens that are part of thoughts; None if that is not known."""
    without_answer: int | None = None
    """Responses with a thought and no answer."""

    @classmethod
    def total(cls, parts: Sequence[Usage]) -> Usage:
        """Return the sum over sets of responses."""
        reasons = sum((Counter(part.stop_reasons) for part in parts), Counter[str]())
        return cls(
            input_tokens=sum(part.input_tokens for part in parts),
            output_tokens=sum(part.output_tokens for part in parts),
            stop_reasons=dict(sorted(reasons.items())),
            thoughts=_total([part.thoughts for part in parts]),
            thought_tokens=_total([part.thought_tokens for part in parts]),
            without_answer=_total([part.without_answer for part in parts]),
        )


class Spent(Record):
    """Calls, tokens and cost of a judge over a set of verdicts."""

    calls: int
    """Calls made for this run."""
    cached: int
    """Verdicts answered from the cache, paid for before; not in the tokens and the cost."""
    input_tokens: int
    """Tokens of the judge's prompts."""
    output_tokens: int
    """Tokens of its answers."""
    cost_usd: float | None
    """US dollars; None if the price of some call is not known."""
    notes: dict[str, int] = Field(default_factory=dict)
    """Note on the calls, such as a setting that the endpoint does not take → number of verdicts."""
    served: dict[str, int] = Field(default_factory=dict)
    """Model that answered, as the endpoint named it → number of verdicts."""

    @classmethod
    def total(cls, parts: Sequence[Spent]) -> Spent | None:
        """Return the sum over sets of verdicts; None if there are none."""
        if not parts:
            return None
        costs = [part.cost_usd for part in parts if part.cost_usd is not None]
        return cls(
            calls=sum(part.calls for part in parts),
            cached=sum(part.cached for part in parts),
            input_tokens=sum(part.input_tokens for part in parts),
            output_tokens=sum(part.output_tokens for part in parts),
            cost_usd=sum(costs) if len(costs) == len(parts) else None,
            notes=dict(sorted(sum((Counter(part.notes) for part in parts), Counter[str]()).items())),
            served=dict(sorted(sum((Counter(part.served) for part in parts), Counter[str]()).items())),
        )


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum of the known counts; None if none is known."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


class Judging(Record):
    """Cost of judging the responses of one task."""

    seconds: float
    """Time of judging."""
    spent: Spent | None = None
    """None for a judge that calls no model."""
    stages: dict[str, int] = Field(default_factory=dict)
    """For a cascade, number of responses by who decided: `first`, `second`, or `audit`, where both were asked."""
