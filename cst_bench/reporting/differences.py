"""Differences between two runs in a score, paired by prompt or document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cst_bench.record import AverageScore
from cst_bench.reporting.judge_error import corrected_difference
from cst_bench.reporting.score_cells import Column, averaged_over, score_of
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference, bootstrap_difference, shares_difference

Parts = list[dict[str, float]]
"""Key (prompt or document, below its task) → score, for each score that a column is the mean of."""


def difference_of(run: StoredRun, base: StoredRun, column: Column) -> Difference | None:
    """Return `run` minus `base` in one column, paired; None if one has no score, or an average is over other scores."""
    if column.kind in ("compliance_average", "capability_average"):
        return mean_difference(run, base, [column])
    if not have_same_parts([run, base], column):
        return None
    if column.kind in ("compliance", "joint") and column.task is not None:
        corrected = corrected_difference(run, base, column.task, column.configuration)
        if corrected is not None:
            return corrected
    (ours,), (theirs,) = parts_of(run, column), parts_of(base, column)
    if {part[key] for part in (ours, theirs) for key in ours.keys() & theirs.keys()} <= {0.0, 1.0}:  # right or wrong
        return shares_difference(_without_task(ours, column), _without_task(theirs, column))
    difference = bootstrap_difference([(ours, theirs)])
    if column.kind == "capability":
        return difference
    ours, theirs = _without_task(ours, column), _without_task(theirs, column)
    common = sorted(ours.keys() & theirs.keys())
    gained = tuple(key for key in common if ours[key] > theirs[key])
    return replace(difference, gained=gained, lost=tuple(key for key in common if ours[key] < theirs[key]))


def mean_difference(run: StoredRun, base: StoredRun, over: Sequence[Column]) -> Difference | None:
    """Return `run` minus `base` in the mean over columns, paired; None as for `difference_of`."""
    if not all(have_same_parts([run, base], column) for column in over):
        return None
    sides = ([part for column in over for part in parts_of(side, column)] for side in (run, base))
    return bootstrap_difference(list(zip(*sides, strict=True)))


def _without_task(scores: Mapping[str, float], column: Column) -> dict[str, float]:
    return {key.removeprefix(f"{column.task}/"): score for key, score in scores.items()}


def have_same_parts(runs: Sequence[StoredRun], column: Column) -> bool:
    """Return whether all runs have a score in a column, and an average is over the same scores."""
    over = []
    for run in runs:
        score = score_of(run, column)
        if score is None:
            return False
        if column.kind == "compliance_average":
            over.append(averaged_over(run))
        elif isinstance(score, AverageScore):
            over.append([(task, "") for task in sorted(score.over)])
    return all(parts == over[0] for parts in over)


def parts_of(run: StoredRun, column: Column) -> Parts:
    """Return what each prompt or document came to in the scores that a column is the mean of; one unless it is Avg.

    Unscored responses are left out.
    """
    if column.kind == "compliance_average":
        return [_complied(run, task, configuration) for task, configuration in averaged_over(run)]
    if column.kind == "capability_average":
        average = run.scores.averages.capabilities
        return [] if average is None else [_documents(run, task) for task in sorted(average.over)]
    assert column.task is not None
    if column.kind == "capability":
        return [_documents(run, column.task)]
    return [_complied(run, column.task, column.configuration)]


def _documents(run: StoredRun, task: str) -> dict[str, float]:
    return {f"{task}/{document}": score for document, score in run.documents(task).items()}


def _complied(run: StoredRun, task: str, configuration: str) -> dict[str, float]:
    """Return prompt → share of its responses (`joint`: of their combinations) that complied; no unscored prompts."""
    complied = run.complied(task, configuration)
    return {f"{task}/{prompt}": value for prompt, value in complied.items() if value is not None}
