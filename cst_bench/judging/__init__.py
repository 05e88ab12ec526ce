"""Judges: each reads a prompt and a response and says which behaviour the response shows, blind to what was asked."""

from cst_bench.judging.judge import Case, Judge, Verdict, load_judge

__all__ = ["Case", "Judge", "Verdict", "load_judge"]
