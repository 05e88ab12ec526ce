"""The report of one run: a leaderboard of that run alone, with what each configuration's responses did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.files import write_text
from cst_bench.record import ConfigurationScore
from cst_bench.reporting.examples import examples
from cst_bench.reporting.leaderboard.board import Leaderboard, ModelRow, Section
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.markdown import corrected_cells, markdown_templates, uncorrected_scores
from cst_bench.reporting.run_facts import run_facts
from cst_bench.reporting.score_cells import Cell, Column
from cst_bench.reporting.stored_run import StoredRun


@dataclass(frozen=True)
class ResponseCounts:
    """Behaviour counts of the responses under one configuration (or no system prompt) of a task."""

    task: str
    title: str
    """`no system prompt` for the reference, which is never scored."""
    cell: Cell | None
    """None for the reference."""
    n: int
    unscored: int
    behaviours: Mapping[str, int]
    faults: Mapping[str, int] = field(default_factory=dict)
    """Cut-off and repeated responses, and what the check for degenerate ones found → number."""


@dataclass(frozen=True)
class RunReport:
    """The content of the report of one run."""

    run: StoredRun
    board: Leaderboard

    @property
    def section(self) -> Section:
        """Return the only section."""
        return self.board.sections[0]

    @property
    def row(self) -> ModelRow:
        """Return the only row."""
        return self.section.rows[0]

    @property
    def compliance(self) -> list[Column]:
        """Return the columns of Tables I and II: averaged configurations, Avg., other configurations."""
        return [column for column in self.section.columns if column.kind in ("compliance", "compliance_average")]

    @property
    def joint(self) -> list[Column]:
        """Return the columns of joint compliance, one for each task with several configurations."""
        return [column for column in self.section.columns if column.kind == "joint"]

    @property
    def capabilities(self) -> list[Column]:
        """Return the columns of Table III with a score, and Avg."""
        columns = [column for column in self.section.columns if column.percent]
        return [column for column in columns if column.key in self.row.cells]

    @property
    def corrected(self) -> list[tuple[Column, Cell]]:
        """Return the scores that could be corrected for judge error."""
        return [(column, cell) for _, column, cell in corrected_cells(self.section)]

    @property
    def has_bounds(self) -> bool:
        """Return whether unscored responses leave a score open."""
        return any(line.cell is not None and line.cell.bounds is not None for line in self._scored())

    @property
    def has_samples(self) -> bool:
        """Return whether prompts have several responses."""
        return any(line.cell is not None and line.cell.prompts is not None for line in self._scored())

    @property
    def wordings(self) -> list[tuple[str, str, Mapping[str, float | None]]]:
        """Return the scores by wording, with task and configuration, where there are several wordings."""
        return [
            (task, name, score.wordings)
            for task, scores in self.run.scores.compliance.items()
            for name, score in scores.configurations.items()
            if any(value is not None for value in score.wordings.values())
        ]

    @property
    def uncorrected(self) -> list[tuple[str, str]]:
        """Return why scores were not corrected for judge error, each reason with the titles of the scores."""
        return uncorrected_scores(self.section)

    @property
    def unavailable(self) -> dict[str, str]:
        """Return the capability tasks that could not be scored, and why."""
        scores = self.run.scores.capabilities
        return {name: score.unavailable for name, score in scores.items() if score.unavailable is not None}

    @property
    def responses(self) -> list[ResponseCounts]:
        """Return what the responses did, by task and configuration; the references come last."""
        return [*self._scored(), *self._references()]

    @property
    def has_faults(self) -> bool:
        """Return whether responses were cut off, repeat themselves, or are degenerate."""
        return any(line.faults for line in self._scored())

    @property
    def has_references(self) -> bool:
        """Return whether prompts were also asked with no system prompt."""
        return any(True for _ in self._references())

    def _scored(self) -> Iterator[ResponseCounts]:
        cells = self.row.cells
        for task, scores in self.run.scores.compliance.items():
            for name, score in scores.configurations.items():
                cell = cells[f"{task}/{name}"]
                yield ResponseCounts(task, name, cell, score.n, score.unscored, score.behaviours, _faults(score))
            if scores.joint is not None:
                yield ResponseCounts(task, "joint", cells[f"{task}/joint"], scores.joint.n, scores.joint.unscored, {})

    def _references(self) -> Iterator[ResponseCounts]:
        for task, scores in self.run.scores.compliance.items():
            if scores.reference is not None:
                reference = scores.reference
                yield ResponseCounts(
                    task, "no system prompt", None, reference.n, reference.unscored, reference.behaviours
                )


def _faults(score: ConfigurationScore) -> dict[str, int]:
    counted = {name: count for name, count in score.useless.items() if name not in score.behaviours}
    return {**counted, **score.degenerate}


def make_run_report(run: StoredRun) -> RunReport:
    """Return the content of the report of one run."""
    return RunReport(run, make_leaderboard([run]))


def run_markdown(run: StoredRun, logs: Mapping[str, Sequence[Path]] | None = None, *, show_text: bool = False) -> str:
    """Return the report of one run as Markdown.

    The same run gives the same text: it holds no time and no path.

    Args:
        run: The run.
        logs: Compliance task → judged Inspect logs, for the examples.
        show_text: Show prompts and responses in the examples.
    """
    template = markdown_templates().get_template("run.md.j2")
    return template.render(
        report=make_run_report(run),
        facts=run_facts(run, run.label, spent=False).facts,
        examples={task: examples(of_task, show_text=show_text) for task, of_task in (logs or {}).items()},
        show_text=show_text,
    )


def write_run_report(run: StoredRun, logs: Mapping[str, Sequence[Path]], *, show_text: bool) -> Path:
    """Write `report.md` into a run folder, and return its path."""
    path = run.folder / "report.md"
    write_text(path, run_markdown(run, logs, show_text=show_text))
    return path
