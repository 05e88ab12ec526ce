"""Cost of generating and judging: tokens, calls, time and cost."""

from __future__ import annotations

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


class Judging(Record):
    """Cost of judging the responses of one task."""

    seconds: float
    """Time of judging."""
    spent: Spent | None = None
    """None for a judge that calls no model."""
    stages: dict[str, int] = Field(default_factory=dict)
    """For a cascade, number of responses by who decided: `first`, `second`, or `audit`, where both were asked."""
