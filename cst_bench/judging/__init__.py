"""Judges: each reads a prompt and a response and says which behaviour the response shows, blind to what was asked."""

from cst_bench.judging.find import FOLDER, find_judge, judge_name, load_judge, read_judge_file
from cst_bench.judging.judge import (
    INCAPABLE,
    NEITHER,
    RESERVED,
    Case,
    Judge,
    JudgeCall,
    JudgeFile,
    JudgeOptions,
    JudgeUnavailable,
    Verdict,
    all_behaviours,
    ask,
    describe_judge,
    ignore_progress,
    judge_cases,
    total_spent,
)
from cst_bench.judging.visible_text import visible

__all__ = [
    "FOLDER",
    "INCAPABLE",
    "NEITHER",
    "RESERVED",
    "Case",
    "Judge",
    "JudgeCall",
    "JudgeFile",
    "JudgeOptions",
    "JudgeUnavailable",
    "Verdict",
    "all_behaviours",
    "ask",
    "describe_judge",
    "find_judge",
    "ignore_progress",
    "judge_cases",
    "judge_name",
    "load_judge",
    "read_judge_file",
    "total_spent",
    "visible",
]
