"""One run against another, paired by prompt and by document: the content of `cst-bench compare` in every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from pydantic import JsonValue

from cst_bench.errors import UserError
from cst_bench.files import json_text
from cst_bench.numbers import number, signed, signed_ends
from cst_bench.record import SHORT, Scores
from cst_bench.reporting.comparable import common_tasks, differing, same_documents
from cst_bench.reporting.differences import difference_of
from cst_bench.reporting.flags import used_flags
from cst_bench.reporting.judge_error import difference_bounds
from cst_bench.reporting.leaderboard.markdown import markdown_templates
from cst_bench.reporting.reruns import rerun_note
from cst_bench.reporting.score_cells import Column, cell_of, columns_of
from cst_bench.reporting.side_effects import (
    MEASURES,
    Measure,
    configuration_title,
    configurations_of,
    side_effect_difference,
    side_effect_of,
)
from cst_bench.reporting.stored_run import StoredRun, load_run
from cst_bench.statistics.correction import MIN_LABELLED
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.labelled_pairs import PPI
from cst_bench.statistics.paired import Difference, holm
from cst_bench.statistics.power import detectable

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class ComparedScore:
    """One score of both runs, and its paired difference."""

    column: Column
    baseline: float | None
    """Score of the baseline run, over everything it was asked."""
    score: float | None
    """Score of the run."""
    difference: Difference
    """Run minus baseline."""
    unscored: tuple[int, int]
    """Responses without a verdict, of the baseline and of the run."""
    flags: tuple[str, ...]
    """Flags of either run's score, such as `unscored`."""
    p_holm: float | None = None
    """Holm-corrected; None for averages and joint compliance, which follow from the other scores."""

    judge_error: Interval | None = None
    """How small and how large the true difference may be, by the error rates on the judge's card; None if unknown, and
    for a difference that is corrected by labels."""

    @property
    def detectable(self) -> float | None:
        """Return the smallest true difference that a comparison of this size shows with power 0.8."""
        return detectable(self.difference)


@dataclass(frozen=True)
class ComparedSideEffect:
    """One side effect of both runs, and its paired difference."""

    task: str
    configuration: str
    """`no system prompt` for the reference."""
    measure: Measure
    baseline: float
    """Mean of the baseline run, over all its prompts."""
    mean: float
    """Mean of the run."""
    difference: Difference
    """Run minus baseline."""
    p_holm: float | None = None
    """Holm-corrected over all side effects of the comparison."""


@dataclass(frozen=True)
class Comparison:
    """A run minus a baseline."""

    baseline: str
    label: str
    scores: Sequence[ComparedScore]
    different: Sequence[str]
    """Where tests or judges differ, if that was allowed."""
    missing: Sequence[str]
    """Tasks that only one of the runs has, or that can't be paired."""
    notes: Sequence[str] = ()
    """How far two runs of one model agree, and why labels of both runs correct nothing."""
    judged: Sequence[Scores] = ()
    """Scores of both runs, whose judges the meanings of flags name."""
    side_effects: Sequence[ComparedSideEffect] = ()
    receipts: tuple[str | None, str | None] = (None, None)
    """Digests of the receipts of the baseline and of the run; None without one."""

    @property
    def receipt_line(self) -> str:
        """Return the receipts of both runs, short: "receipts: baseline 0123456789abcdef, run none"."""
        baseline, run = ("none" if receipt is None else receipt[:SHORT] for receipt in self.receipts)
        return f"receipts: baseline {baseline}, run {run}"

    @property
    def flags(self) -> dict[str, str]:
        """Return the flags in use, and their meanings."""
        return used_flags((flag for score in self.scores for flag in score.flags), self.judged)

    @property
    def labelled(self) -> bool:
        """Return whether a difference is corrected by people's labels of both runs."""
        return any(score.difference.test == PPI for score in self.scores)

    @property
    def bounded(self) -> bool:
        """Return whether a difference has a bound for judge error."""
        return any(score.judge_error is not None for score in self.scores)

    def to_markdown(self, gates: Sequence[str] = ()) -> str:
        """Return the comparison as Markdown, every changed prompt by its id; `gates` are messages of gate results."""
        environment = markdown_templates()
        environment.filters.update(
            value=lambda value, column: Markup(number(value, column.scale)),
            change=lambda value, column: Markup(signed(value, column.scale)),
            change_ends=lambda interval, column: Markup(signed_ends(interval, column.scale)),
        )
        return environment.get_template("compare.md.j2").render(comparison=self, gates=gates, ppi=PPI)

    def to_json(self, gates: Sequence[Mapping[str, JsonValue]] = ()) -> str:
        """Return the comparison as JSON, in full precision; scores and differences are shares."""
        content = {
            "schema": SCHEMA_VERSION,
            "baseline": self.baseline,
            "run": self.label,
            "receipts": dict(zip(("baseline", "run"), self.receipts, strict=True)),
            "different": list(self.different),
            "missing": list(self.missing),
            "notes": list(self.notes),
            "flags": self.flags,
            "scores": {score.column.key: _as_json(score) for score in self.scores},
            "side_effects": [_side_effect_json(effect) for effect in self.side_effects],
            "gates": list(gates),
        }
        return json_text(content)

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per score: run minus baseline, paired, as shares."""
        from cst_bench.reporting.frames import comparison_frame

        return comparison_frame(self)

    def _repr_markdown_(self) -> str:
        from cst_bench.reporting.notebook import comparison_table_markdown

        return comparison_table_markdown(self)


def compare(
    baseline: Path | str | StoredRun, run: Path | str | StoredRun, *, allow_different: bool = False
) -> Comparison:
    """Compare a run with a baseline, each given by its folder or as `load_run` returns it.

    Raises:
        UserError: as `load_run` and `compare_runs`.
    """
    first, second = (stored if isinstance(stored, StoredRun) else load_run(stored) for stored in (baseline, run))
    return compare_runs(first, second, allow_different=allow_different)


def compare_runs(baseline: StoredRun, run: StoredRun, *, allow_different: bool = False) -> Comparison:
    """Compare `run` with `baseline` in every score that both have.

    Raises:
        UserError: they have no task in common; or tests or judges differ, and that is not allowed.
    """
    if not common_tasks(run, baseline):
        raise UserError(f"{baseline.folder} and {run.folder} have no task in common: there is nothing to compare")
    different = differing(run, baseline)
    if different and not allow_different:
        raise UserError(
            f"{run.folder} can't be compared with {baseline.folder}: {'; '.join(different)}; "
            "--allow-different compares what both have, and lists the differences"
        )
    both = [task for task in run.outcomes.capabilities if task in baseline.outcomes.capabilities]
    unpaired = [task for task in both if not same_documents(baseline, run, task)]
    scores, notes = [], list[str]()
    for column in columns_of([baseline, run]):
        ours, theirs = cell_of(run, column), cell_of(baseline, column)
        if ours is None or theirs is None or column.task in unpaired:
            continue
        if column.kind == "capability_average" and unpaired:
            continue
        difference = difference_of(run, baseline, column)
        if difference is not None:
            flags = tuple(dict.fromkeys((*theirs.flags, *ours.flags)))
            unscored = (theirs.unscored, ours.unscored)
            notes += _few_labels(run, baseline, column, difference)
            error = None
            if column.kind == "compliance" and column.task is not None and difference.test != PPI:
                error = difference_bounds(run, baseline, column.task, column.configuration)
            scores.append(
                ComparedScore(column, theirs.score, ours.score, difference, unscored, flags, judge_error=error)
            )
    rerun = rerun_note(run, baseline, [score.difference for score in scores])
    notes += [] if rerun is None else [rerun]
    labels = [baseline.label, run.label]
    if labels[0] == labels[1]:
        labels = [f"{stored.label} ({stored.folder.name})" for stored in (baseline, run)]
    return Comparison(
        labels[0],
        labels[1],
        _with_holm(scores),
        different,
        _missing(baseline, run, unpaired),
        notes,
        (baseline.scores, run.scores),
        _side_effects(baseline, run),
        (baseline.receipt, run.receipt),
    )


def _side_effects(baseline: StoredRun, run: StoredRun) -> list[ComparedSideEffect]:
    effects = []
    for task, configuration in configurations_of([baseline, run]):
        for measure in MEASURES:
            before, now = (side_effect_of(side, task, configuration, measure.name) for side in (baseline, run))
            difference = side_effect_difference(run, baseline, task, configuration, measure.name)
            if before is not None and now is not None and difference is not None:
                title = configuration_title(configuration)
                effects.append(ComparedSideEffect(task, title, measure, before.mean, now.mean, difference))
    corrected = holm([1.0 if effect.difference.p is None else effect.difference.p for effect in effects])
    return [dataclasses.replace(effect, p_holm=p) for effect, p in zip(effects, corrected, strict=True)]


def _few_labels(run: StoredRun, baseline: StoredRun, column: Column, difference: Difference) -> Iterator[str]:
    if column.kind != "compliance" or column.task is None or difference.test == PPI:
        return
    shown = [side.labelled(column.task, column.configuration).shown for side in (run, baseline)]
    if all(shown):
        both = len(shown[0].keys() & shown[1].keys())
        yield f"{column.title}: {both} prompts are labelled in both runs, and {MIN_LABELLED} are needed to correct it"


def _with_holm(scores: Sequence[ComparedScore]) -> list[ComparedScore]:
    """Correct the p values of configurations and capabilities for their number."""
    single = {
        at: score.difference.p
        for at, score in enumerate(scores)
        if score.column.kind in ("compliance", "capability") and score.difference.p is not None
    }
    corrected = dict(zip(single, holm(list(single.values())), strict=True))
    return [dataclasses.replace(score, p_holm=corrected.get(at)) for at, score in enumerate(scores)]


def _missing(baseline: StoredRun, run: StoredRun, unpaired: Sequence[str]) -> list[str]:
    both = set(common_tasks(run, baseline))
    return [f"{task} (other documents)" for task in unpaired] + [
        f"{task} (only {stored.label})"
        for stored in (baseline, run)
        for task in (*stored.outcomes.compliance, *stored.outcomes.capabilities)
        if task not in both
    ]


def _side_effect_json(effect: ComparedSideEffect) -> dict[str, JsonValue]:
    return {
        "task": effect.task,
        "configuration": effect.configuration,
        "measure": effect.measure.name,
        "baseline": effect.baseline,
        "mean": effect.mean,
        **asdict(effect.difference),
        "p_holm": effect.p_holm,
    }


def _as_json(score: ComparedScore) -> dict[str, JsonValue]:
    return {
        "title": score.column.title,
        "task": score.column.task,
        "kind": score.column.kind,
        "baseline": score.baseline,
        "score": score.score,
        "unscored": list(score.unscored),
        "flags": list(score.flags),
        **asdict(score.difference),
        "p_holm": score.p_holm,
        "detectable": score.detectable,
        "judge_error": None if score.judge_error is None else list(score.judge_error),
    }
