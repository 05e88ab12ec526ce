"""Judges: each reads a prompt and a response and says which behaviour the response shows, blind to what was asked."""

from cst_bench.judging.find import FOLDER, find_judge, judge_name, load_judge, read_judge_file
from cst_bench.judging.judge import (
    EMPTY,
    NEITHER,
    REASONING_EFFORTS,
    Case,
    Judge,
    JudgeCall,
    JudgeFile,
    JudgeOptions,
    JudgeUnavailable,
    Verdict,
    ask,
    describe_judge,
    ignore_progress,
    total_spent,
    visible,
)

__all__ = [
    "EMPTY",
    "FOLDER",
    "NEITHER",
    "REASONING_EFFORTS",
    "Case",
    "Judge",
    "JudgeCall",
    "JudgeFile",
    "JudgeOptions",
    "JudgeUnavailable",
    "Verdict",
    "ask",
    "describe_judge",
    "find_judge",
    "ignore_progress",
    "judge_name",
    "load_judge",
    "read_judge_file",
    "total_spent",
    "visible",
]
