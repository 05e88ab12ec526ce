"""Means over the training seeds of a method: cells, and differences between methods."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from cst_bench.reporting.differences import Parts, difference_of, have_same_parts, mean_difference, parts_of
from cst_bench.reporting.score_cells import Cell, Column, mean_bounds
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.labelled_pairs import PPI
from cst_bench.statistics.paired import Difference
from cst_bench.statistics.two_way import MIN_SEEDS, two_way_difference, two_way_interval


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
    bounds = mean_bounds(cells)
    if not scores or len(scores) < len(cells):
        return Cell(None, None, n, unscored, flags, useless=useless, seeds=len(cells), bounds=bounds)
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
        bounds=bounds,
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
    by_labels = [difference for difference in single if difference is not None and difference.test == PPI]
    if by_labels:
        if len(by_labels) < len(single):  # verdicts of some runs and labels of others are not of one kind
            return Difference(None, None, None, by_labels[0].n, PPI)
        return mean_of_labelled(by_labels)
    own = [None if difference is None else difference.interval for difference in single]
    return two_way_difference([_parts(run, over) for run in ours], [_parts(run, over) for run in theirs], own)


def mean_of_labelled(differences: Sequence[Difference]) -> Difference:
    """Return the mean over seeds of differences that people's labels correct.

    With five seeds or more, interval and p value are Student's t, with the variance between seeds and the mean variance
    of a single one: prompts are common to all, and are not averaged out.
    """
    from scipy.stats import t

    values = [difference.difference for difference in differences if difference.difference is not None]
    ends = [difference.interval for difference in differences if difference.interval is not None]
    mean, n = statistics.fmean(values), differences[0].n
    if len(values) < MIN_SEEDS or len(ends) < len(values):
        return Difference(mean, None, None, n, PPI)
    within = statistics.fmean(((high - low) / 3.92) ** 2 for low, high in ends)
    error = math.sqrt(statistics.variance(values) / len(values) + within)
    half = float(t.ppf(0.975, len(values) - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, len(values) - 1)) if error else 1.0
    return Difference(mean, (max(-1.0, mean - half), min(1.0, mean + half)), p, n, PPI)


def _between(run: StoredRun, other: StoredRun, over: Sequence[Column]) -> Difference | None:
    return difference_of(run, other, over[0]) if len(over) == 1 else mean_difference(run, other, over)
