"""A judge's own verdicts, without the check for degenerate responses that `ask` makes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cst_bench.judging import Case, Judge, Verdict, ignore_progress


def own_verdicts(judge: Judge, cases: Sequence[Case], count: Callable[[int], None] = ignore_progress) -> list[Verdict]:
    """Ask the judge about every case."""
    return asyncio.run(judge.judge(cases, count))
