"""Scores in tables: columns, and a run's cell in each. The one model that every report, table and plot is made from.

Nothing here is escaped or rounded: formats do that. Scores are shares in 0 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cst_bench.numbers import ends
from cst_bench.record import AverageScore, CapabilityScore, ConfigurationScore, Score
from cst_bench.reporting.flags import flags_of
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference

ColumnKind = Literal["compliance", "joint", "compliance_average", "capability", "capability_average"]


@dataclass(frozen=True)
class Column:
    """A score that models have."""

    key: str
    """`task/configuration`, `task/joint`, a capability task, `average/compliance` or `average/capabilities`."""
    title: str
    """S1, joint, ARC, Avg., …"""
    kind: ColumnKind
    task: str | None = None
    percent: bool = False
    """Show it in %, as the paper shows capabilities."""

    @property
    def configuration(self) -> str:
        """Return the configuration of a compliance column."""
        return self.key.removeprefix(f"{self.task}/")

    @property
    def scale(self) -> int:
        """Return what a share is multiplied by: 100 for percentages."""
        return 100 if self.percent else 1


@dataclass(frozen=True)
class Spread:
    """Interval or range below a score."""

    ends: Interval
    name: str = ""
    """`range of 3 seeds`; empty for a 95 % interval."""


@dataclass(frozen=True)
class Cell:
    """A score in one column."""

    score: float | None
    interval: Interval | None
    """95 % interval; None for a mean over two to four seeds."""
    n: int
    unscored: int = 0
    flags: tuple[str, ...] = ()
    """Names of footnotes, such as `uncalibrated`."""
    best: bool = False
    """Highest of the column's ranked models, and ahead of each other one by tests corrected over the report."""
    corrected: float | None = None
    """Score corrected for judge error."""
    corrected_interval: Interval | None = None
    corrected_by: str | None = None
    """`rogan-gladen` or `ppi++`."""
    uncorrected: str | None = None
    """Why a score was not corrected that has something to correct it by."""
    difference: Difference | None = None
    """Paired difference to the base of the same group; None for the base itself and where there is none."""
    published: float | None = None
    """Published value, in the column's own unit (a share, or %)."""
    useless: Mapping[str, int] = field(default_factory=dict)
    """`neither`, `incapable`, `cut off`, `repeated` → number of responses; no zeros."""
    prompts: int | None = None
    """Prompts that the responses are of; None where each has one."""
    bounds: Interval | None = None
    """Scores if all unscored responses failed, and if all complied."""
    seeds: int = 1
    """Number of training seeds that the score is the mean of."""
    seed_range: Interval | None = None
    """Lowest and highest score over the seeds; None for a single run."""

    @property
    def spread(self) -> Spread | None:
        """Return the interval, or the range of a few seeds where there is none."""
        if self.interval is not None:
            return Spread(self.interval)
        return None if self.seed_range is None else Spread(self.seed_range, f"range of {self.seeds} seeds")


@dataclass(frozen=True)
class SeedRow:
    """Scores of one training seed of a method."""

    seed: int
    label: str
    """Name of the checkpoint."""
    cells: Mapping[str, Cell]
    """Column key → cell."""


@dataclass(frozen=True)
class TableRow:
    """A line of a table."""

    title: str
    cells: Mapping[str, Cell]
    """Column key → cell; columns without a score are left out."""
    seeds: Sequence[SeedRow] = ()
    """Runs that the scores are means of, one for each training seed; empty for a single run."""

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return max(1, len(self.seeds))


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores, such as Table I, II or III in the paper's form."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[TableRow]

    @property
    def has_published(self) -> bool:
        """Return whether a cell has a published value."""
        return any(cell.published is not None for row in self.rows for cell in row.cells.values())


def columns_of(runs: Sequence[StoredRun]) -> list[Column]:
    """Return the columns of runs: averaged configurations, Avg., other configurations, joint, capabilities, Avg."""
    configurations: dict[str, list[str]] = {}
    for run in runs:
        for task, scores in run.scores.compliance.items():
            names = configurations.setdefault(task, [])
            names += [name for name in scores.configurations if name not in names]
    pairs = [(task, name) for task, names in configurations.items() for name in names]
    averages = [run.scores.averages.compliance for run in runs]
    averaged: tuple[str, ...] = max((average.over for average in averages if average is not None), key=len, default=())
    columns = [_configuration(task, name) for wanted in averaged for task, name in pairs if name == wanted]
    if averaged:
        columns.append(Column("average/compliance", "Avg.", "compliance_average"))
    columns += [_configuration(task, name) for task, name in pairs if name not in averaged]
    joint = [task for task in configurations if any(_has_joint(run, task) for run in runs)]
    columns += [
        Column(f"{task}/joint", "joint" if len(joint) == 1 else f"joint {task}", "joint", task) for task in joint
    ]
    capabilities: dict[str, str] = {}
    for run in runs:
        capabilities |= {task: score.title for task, score in run.scores.capabilities.items()}
    columns += [Column(task, title, "capability", task, percent=True) for task, title in capabilities.items()]
    if any(run.scores.averages.capabilities is not None for run in runs):
        columns.append(Column("average/capabilities", "Avg.", "capability_average", percent=True))
    return columns


def _configuration(task: str, name: str) -> Column:
    return Column(f"{task}/{name}", name, "compliance", task)


def _has_joint(run: StoredRun, task: str) -> bool:
    scores = run.scores.compliance.get(task)
    return scores is not None and scores.joint is not None


def averaged_over(run: StoredRun) -> list[tuple[str, str]]:
    """Return the (task, configuration) pairs of a run's compliance average."""
    average = run.scores.averages.compliance
    names = () if average is None else average.over
    return [
        (task, name)
        for name in names
        for task, scores in run.scores.compliance.items()
        if name in scores.configurations
    ]


def score_of(run: StoredRun, column: Column) -> Score | CapabilityScore | AverageScore | None:
    """Return a run's score in a column as `scores.json` has it; None if there is none."""
    scores = run.scores
    if column.kind == "compliance_average":
        return scores.averages.compliance
    if column.kind == "capability_average":
        return scores.averages.capabilities
    if column.kind == "capability":
        capability = scores.capabilities.get(column.task or "")
        return None if capability is None or capability.unavailable is not None else capability
    task = scores.compliance.get(column.task or "")
    if task is None:
        return None
    return task.joint if column.kind == "joint" else task.configurations.get(column.configuration)


def cell_of(run: StoredRun, column: Column) -> Cell | None:
    """Return a run's cell in a column; None if it has no score there."""
    score = score_of(run, column)
    if score is None:
        return None
    if isinstance(score, CapabilityScore):
        return Cell(score.score, score.interval, score.n)
    if isinstance(score, AverageScore):
        return _average_cell(run, column, score)
    corrected = score.corrected
    return Cell(
        score.score,
        score.interval,
        score.n,
        score.unscored,
        flags_of(score, run.scores.judges[column.task or ""]),
        corrected=None if corrected is None else corrected.score,
        corrected_interval=None if corrected is None else corrected.interval,
        corrected_by=None if corrected is None else corrected.method,
        uncorrected=None if corrected is None else corrected.undefined,
        useless=score.useless if isinstance(score, ConfigurationScore) else {},
        prompts=score.prompts,
        bounds=score.bounds,
    )


def _average_cell(run: StoredRun, column: Column, average: AverageScore) -> Cell:
    """Return the cell of an average, with the counts and flags of the scores that it is over."""
    if column.kind == "capability_average":
        return Cell(average.score, average.interval, sum(run.scores.capabilities[task].n for task in average.over))
    over = [cell_of(run, _configuration(task, name)) for task, name in averaged_over(run)]
    cells = [cell for cell in over if cell is not None]
    flags = dict.fromkeys(flag for cell in cells for flag in cell.flags)
    n, unscored = sum(cell.n for cell in cells), sum(cell.unscored for cell in cells)
    useless = sum((Counter(cell.useless) for cell in cells), Counter[str]())
    bounds = mean_bounds(cells)
    return Cell(average.score, average.interval, n, unscored, tuple(flags), useless=dict(useless), bounds=bounds)


def mean_bounds(cells: Sequence[Cell]) -> Interval | None:
    """Return the mean of cells if all unscored responses failed, and if all complied; None if none is unscored."""
    ends = [cell.bounds or (cell.score, cell.score) for cell in cells]
    low, high = [end[0] for end in ends if end[0] is not None], [end[1] for end in ends if end[1] is not None]
    if not any(cell.bounds for cell in cells) or not len(low) == len(high) == len(cells):
        return None
    return sum(low) / len(low), sum(high) / len(high)


def counts_in_words(cell: Cell) -> list[str]:
    """Return the counts beside a score: `n 50`, `3 unscored (0.90–0.96)`, `12 neither`, `7 cut off`.

    In brackets: the score if all unscored responses failed, and if all complied.
    """
    bounds = "" if cell.bounds is None else f" ({ends(cell.bounds, 1)})"
    unscored = [f"{cell.unscored} unscored{bounds}"] if cell.unscored else []
    return [responses_in_words(cell), *unscored, *(f"{count} {name}" for name, count in cell.useless.items())]


def responses_in_words(cell: Cell) -> str:
    """Return the number of scored responses: `n 50`, or `n 250 of 50 prompts`."""
    return f"n {cell.n}" if cell.prompts is None else f"n {cell.n} of {cell.prompts} prompts"
