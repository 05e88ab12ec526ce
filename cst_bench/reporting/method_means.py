"""Means over the training seeds of a method: cells, and differences between methods."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from cst_bench.reporting.differences import Parts, difference_of, have_same_parts, mean_difference, parts_of
from cst_bench.reporting.score_cells import Cell, Column
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference
from cst_bench.statistics.two_way import two_way_difference, two_way_interval


def mean_cell(runs: Sequence[StoredRun], over: Sequence[Column], cells: Sequence[Cell]) -> Cell:
    """Return the mean over seeds of cells in one column; the cell itself if there is one.

    With five seeds or more it has an interval over seeds and prompts, with fewer the range of the seeds.

    Args:
        runs: Runs of a method, one for each seed.
        over: The column; for an average, it may be the columns that it is over.
        cells: Cell of each run.
    """
    if len(cells) == 1:
        return cells[0]
    scores = [cell.score for cell in cells if cell.score is not None]
    flags = tuple(dict.fromkeys(flag for cell in cells for flag in cell.flags))
    n, unscored = sum(cell.n for cell in cells), sum(cell.unscored for cell in cells)
    useless = dict(sum((Counter(cell.useless) for cell in cells), Counter[str]()))
    if not scores or len(scores) < len(cells):
        return Cell(None, None, n, unscored, flags, useless=useless, seeds=len(cells))
    interval = None
    if all(have_same_parts(runs, column) for column in over):
        interval = two_way_interval([_parts(run, over) for run in runs], [cell.interval for cell in cells])
    return Cell(
        statistics.fmean(scores),
        interval,
        n,
        unscored,
        flags,
        useless=useless,
        seeds=len(cells),
        seed_range=(min(scores), max(scores)),
    )


def _parts(run: StoredRun, over: Sequence[Column]) -> Parts:
    return [part for column in over for part in parts_of(run, column)]


def method_difference(
    ours: Sequence[StoredRun], theirs: Sequence[StoredRun], over: Sequence[Column]
) -> Difference | None:
    """Return the first minus the second, each a single run or the runs of a method.

    Args:
        ours: Runs of the first, one for each seed.
        theirs: Runs of the second.
        over: The column; for an average, it may be the columns that it is over.

    Returns:
        None if a run has no score, or an average is over other scores. Between single runs as `difference_of`; means
        over two to four seeds have neither interval nor p value.
    """
    if len(ours) == len(theirs) == 1:
        return _between(ours[0], theirs[0], over)
    if not all(have_same_parts([*ours, *theirs], column) for column in over):
        return None
    single = [
        _between(ours[at % len(ours)], theirs[at % len(theirs)], over) for at in range(max(len(ours), len(theirs)))
    ]
    own = [None if difference is None else difference.interval for difference in single]
    return two_way_difference([_parts(run, over) for run in ours], [_parts(run, over) for run in theirs], own)


def _between(run: StoredRun, other: StoredRun, over: Sequence[Column]) -> Difference | None:
    return difference_of(run, other, over[0]) if len(over) == 1 else mean_difference(run, other, over)
