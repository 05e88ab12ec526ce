"""Judges: each reads a prompt and a response and says which behaviour the response shows, blind to what was asked."""

from cst_bench.judging.find import find_judge, judge_name, load_judge
from cst_bench.judging.judge import (
    EMPTY,
    NEITHER,
    Case,
    Judge,
    JudgeOptions,
    JudgeUnavailable,
    Spent,
    Verdict,
    ask,
    total_spent,
    uncounted,
    visible,
)

__all__ = [
    "EMPTY",
    "NEITHER",
    "Case",
    "Judge",
    "JudgeOptions",
    "JudgeUnavailable",
    "Spent",
    "Verdict",
    "ask",
    "find_judge",
    "judge_name",
    "load_judge",
    "total_spent",
    "uncounted",
    "visible",
]
