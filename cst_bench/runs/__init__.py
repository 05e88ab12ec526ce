"""A run: one checkpoint on one suite, in a folder that the same call continues and nothing else is mixed into."""

from cst_bench.runs.evaluate import RunResult, run
from cst_bench.runs.external import ScoreOptions, score_file
from cst_bench.runs.judge_again import JudgeRunOptions, judge_run
from cst_bench.runs.run_plan import Plan, RunOptions, make_plan

__all__ = [
    "JudgeRunOptions",
    "Plan",
    "RunOptions",
    "RunResult",
    "ScoreOptions",
    "judge_run",
    "make_plan",
    "run",
    "score_file",
]
