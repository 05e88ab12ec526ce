"""The content of a report of one or several runs, which Markdown, HTML, LaTeX, CSV, JSON and the plots lay out.

Nothing here is escaped or rounded: formats do that. Scores are shares in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.reporting.score_cells import Column, ScoreTable, TableRow
from cst_bench.reporting.side_effects import SideEffectTable
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class ModelRow(TableRow):
    """The line of a model, or of a method: the models that differ only in the training seed.

    Its title is `+ DPO`, `+ CST` or the like below a base in the same table, else its label.
    """

    label: str
    """Name of the checkpoint in the run, or of the method's runs."""
    method: str | None
    """DPO, CST, adapter; None for a base."""
    base: str
    """Label of the base model this row is grouped under; its own label for a base."""
    is_base: bool
    members: tuple[StoredRun, ...]
    """The run, or the runs of a method by seed."""

    @property
    def run(self) -> StoredRun:
        """Return the run, or the first of a method: all were asked and judged the same."""
        return self.members[0]

    @property
    def family(self) -> str:
        """Return what all models trained on the same weights share."""
        return self.run.base_sha256


@dataclass(frozen=True)
class CapabilityVerdict:
    """Whether a trained model kept a capability of its base."""

    label: str
    title: str
    """Title of the model in the table."""
    base: str
    column: str
    difference: Difference
    p_holm: float | None
    kept: str
    """`lost`, `gained` (both: Holm-corrected p below 0.05), `no difference shown`, `not tested` or `undefined`."""


@dataclass(frozen=True)
class JudgeRow:
    """The judge of a task, and its agreement with labels."""

    task: str
    name: str
    model: str
    f1: float | None
    interval: Interval | None
    n: int
    labels: str
    labelled_by: str
    calibrated: bool


@dataclass(frozen=True)
class AskedBehaviour:
    """The behaviour that a configuration asks for."""

    title: str
    """Title of the configuration's column."""
    task: str
    behaviour: str


@dataclass(frozen=True)
class Section:
    """Models that were asked the same, by the same judges: what may be ranked together."""

    title: str
    why: Sequence[str]
    """Where its test sets or judges differ from the first section's; empty for the first."""
    columns: Sequence[Column]
    rows: Sequence[ModelRow]
    """Bases, each followed by the models trained on it."""
    tables: Sequence[ScoreTable]
    """Tables I to III in the paper's form."""
    capabilities: Sequence[CapabilityVerdict]
    judges: Sequence[JudgeRow]
    asked: Sequence[AskedBehaviour] = ()
    """One for each configuration among the columns."""
    side_effects: SideEffectTable | None = None
    """None if no run has any."""


@dataclass(frozen=True)
class RunFacts:
    """How a run was made: (name, value) in order."""

    label: str
    facts: Sequence[tuple[str, str]]
    receipt: str | None = None
    """Digest of the run's receipt; None without one."""


@dataclass(frozen=True)
class Leaderboard:
    """The content of a report."""

    title: str
    sections: Sequence[Section]
    flags: Mapping[str, str]
    """Flags in use, and their meanings."""
    notes: Sequence[str]
    runs: Sequence[RunFacts]

    @property
    def single_seeds(self) -> bool:
        """Return whether a trained model is a single run."""
        return any(not row.is_base and row.runs == 1 for section in self.sections for row in section.rows)

    @property
    def several_seeds(self) -> bool:
        """Return whether a line is the mean over training seeds."""
        return any(row.seeds for section in self.sections for row in section.rows)

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per model and score, with the paired difference to the base; scores are shares in 0 to 1."""
        from cst_bench.reporting.frames import leaderboard_frame

        return leaderboard_frame(self)

    def _repr_markdown_(self) -> str:
        from cst_bench.reporting.notebook import board_tables

        return board_tables(self)
