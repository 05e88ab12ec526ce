"""Side effects of training: lengths and faults of responses, KL divergence."""

from __future__ import annotations

from typing import Literal

from cst_bench.record.record_file import Record
from cst_bench.statistics.intervals import Interval

SideEffectName = Literal["tokens", "words", "cut_off", "repeated", "degenerate", "kl_first_token", "kl_per_token"]
"""Values of a response: tokens without thoughts; words between white space; whether it ended at the token limit;
whether it or its second half repeats itself; whether the check for degenerate responses found it to show no behaviour.
Values of the greedy response: KL divergence from the base in nats, at its first token, and averaged over its tokens."""
SHARES: tuple[SideEffectName, ...] = ("cut_off", "repeated", "degenerate")
"""Those that are true or false of a response, so that their mean is a share."""

KL: tuple[SideEffectName, ...] = ("kl_first_token", "kl_per_token")
"""Those that compare a checkpoint with its base."""


class SideEffect(Record):
    """A measure of responses, averaged within each prompt, then over prompts."""

    mean: float
    """Mean; for what is true or false of a response, the share."""
    interval: Interval | None
    """95 % interval, clustered by prompt; None for fewer than five prompts, and if all have one value (not shares)."""
    median: float
    """Median over prompts."""
    prompts: int
    """Prompts that have a value."""
    n: int
    """Responses that have a value."""
