"""What a report of several runs says: the one content that Markdown, HTML, LaTeX, CSV, JSON and the plots lay out.

Nothing here is escaped or rounded: formats do that. Scores are shares in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference


@dataclass(frozen=True)
class Column:
    """A score that models have."""

    key: str
    """`task/configuration`, `task/joint`, a capability task, `average/compliance` or `average/capabilities`."""
    title: str
    """S1, joint, ARC, Avg., …"""
    kind: str
    """compliance, joint, compliance_average, capability or capability_average."""
    task: str | None = None
    percent: bool = False
    """Whether tables show it in %, as capabilities are in the paper."""


@dataclass(frozen=True)
class Cell:
    """One model's score in one column."""

    score: float | None
    interval: tuple[float, float] | None
    n: int
    unscored: int = 0
    marks: tuple[str, ...] = ()
    """Names of footnotes: uncalibrated, unscored, …"""
    best: bool = False
    """Highest of the column's ranked models, and ahead of each other one by the paired test, Holm-corrected."""
    corrected: float | None = None
    """With the judge's error in it."""
    corrected_interval: tuple[float, float] | None = None
    corrected_by: str | None = None
    """rogan-gladen or ppi++."""
    difference: Difference | None = None
    """To the base of the same group, paired; None for the base itself and where there is none."""
    published: float | None = None
    """As it was published, in the column's own unit (a share, or %)."""


@dataclass(frozen=True)
class ModelRow:
    """A model's line."""

    label: str
    """As the run calls it."""
    title: str
    """What the table calls it: the label; `+ DPO`, `+ CST` and the like under a base that is there, too."""
    method: str | None
    """DPO, CST, adapter; None for a base."""
    base: str
    """What the base is called that it belongs under; its own label for a base."""
    is_base: bool
    run: StoredRun
    cells: Mapping[str, Cell]
    """By the column's key. A column that the run doesn't have is not in it."""

    @property
    def family(self) -> str:
        """The same for all models of one base's weights."""
        return self.run.base_sha256


@dataclass(frozen=True)
class CapabilityVerdict:
    """Whether a trained model kept its base's capabilities."""

    label: str
    title: str
    """What the table calls it."""
    base: str
    column: str
    difference: Difference
    p_holm: float | None
    kept: str
    """lost, gained (both: Holm-corrected p below 0.05), `no difference shown`, or undefined."""


@dataclass(frozen=True)
class PaperTable:
    """Table I, II or III in the paper's form: some columns of the section."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[ModelRow]
    """Cells carry what was published."""


@dataclass(frozen=True)
class JudgeRow:
    """Who judged a task, and how far that judge agrees with labels."""

    task: str
    name: str
    model: str
    f1: float | None
    interval: tuple[float, float] | None
    n: int
    labels: str
    labelled_by: str
    calibrated: bool


@dataclass(frozen=True)
class Asked:
    """What a configuration asks for."""

    title: str
    """Of its column."""
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
    """Bases, each with what was trained on it below."""
    tables: Sequence[PaperTable]
    capabilities: Sequence[CapabilityVerdict]
    judges: Sequence[JudgeRow]
    asked: Sequence[Asked] = ()
    """Of each configuration among the columns."""


@dataclass(frozen=True)
class RunFacts:
    """How a run was made: (what, value) in order."""

    label: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Leaderboard:
    """All that a report says."""

    title: str
    sections: Sequence[Section]
    marks: Mapping[str, str]
    """Footnotes that are used, and what they mean."""
    remarks: Sequence[str]
    runs: Sequence[RunFacts]
