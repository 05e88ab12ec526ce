"""Differences between two runs in a score, paired by prompt or document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cst_bench.record import AverageScore
from cst_bench.reporting.score_cells import Column, averaged_over, score_of
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference, bootstrap_difference, shares_difference


def difference_of(run: StoredRun, base: StoredRun, column: Column) -> Difference | None:
    """Return `run` minus `base` in one column, paired; None if one has no score, or an average is over other scores."""
    ours, theirs = score_of(run, column), score_of(base, column)
    if ours is None or theirs is None:
        return None
    if column.kind == "compliance_average":
        over = averaged_over(run)
        return average_difference(run, base, over) if over == averaged_over(base) else None
    if isinstance(ours, AverageScore) and isinstance(theirs, AverageScore):
        same = sorted(ours.over) == sorted(theirs.over)
        return capabilities_average_difference(run, base, ours.over) if same else None
    assert column.task is not None
    if column.kind == "capability":
        return capability_difference(run, base, column.task)
    return compliance_difference(run, base, column.task, column.configuration)


def compliance_difference(run: StoredRun, base: StoredRun, task: str, configuration: str) -> Difference:
    """Return `run` minus `base` in one configuration of a task, or `joint`, by prompt."""
    ours, theirs = _scored(run.complied(task, configuration)), _scored(base.complied(task, configuration))
    if {*ours.values(), *theirs.values()} <= {0.0, 1.0}:
        return shares_difference(ours, theirs)
    return bootstrap_difference([(ours, theirs)])


def capability_difference(run: StoredRun, base: StoredRun, task: str) -> Difference:
    """Return `run` minus `base` in one capability task, by document.

    Where documents are right or wrong, the interval is no narrower than Newcombe's: the bootstrap covers too little
    where few documents differ, and has no width where none or all do.
    """
    ours, theirs = run.documents(task), base.documents(task)
    difference = bootstrap_difference([(ours, theirs)])
    common = ours.keys() & theirs.keys()
    values = {ours[key] for key in common} | {theirs[key] for key in common}
    if difference.interval is None or not values <= {0.0, 1.0}:
        return difference
    newcombe = shares_difference(ours, theirs).interval or difference.interval
    wider = min(difference.interval[0], newcombe[0]), max(difference.interval[1], newcombe[1])
    return replace(difference, interval=wider)


def average_difference(run: StoredRun, base: StoredRun, over: Sequence[tuple[str, str]]) -> Difference:
    """Return `run` minus `base` in the mean over (task, configuration) pairs, by prompt within each task."""
    if not over:
        return Difference(None, None, None, 0, "permutation")
    return bootstrap_difference(
        [
            (
                _scored(run.complied(task, configuration), f"{task}/"),
                _scored(base.complied(task, configuration), f"{task}/"),
            )
            for task, configuration in over
        ]
    )


def capabilities_average_difference(run: StoredRun, base: StoredRun, tasks: Sequence[str]) -> Difference:
    """Return `run` minus `base` in the mean over capability tasks."""
    return bootstrap_difference([(_documents(run, task), _documents(base, task)) for task in tasks])


def _documents(run: StoredRun, task: str) -> dict[str, float]:
    return {f"{task}/{document}": score for document, score in run.documents(task).items()}


def _scored(complied: Mapping[str, float | None], prefix: str = "") -> dict[str, float]:
    """Return prompt id → share of its responses that complied, without unscored prompts."""
    return {f"{prefix}{prompt}": value for prompt, value in complied.items() if value is not None}
