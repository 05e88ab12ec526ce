"""Judges of kind `guard`: local checkpoints that were trained to classify responses, scored for their verdicts only."""

from cst_bench.judging.guard.guard_judge import FILE_MODEL, GuardFile, GuardJudge, make

__all__ = ["FILE_MODEL", "GuardFile", "GuardJudge", "make"]
