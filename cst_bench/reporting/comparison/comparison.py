"""One run against another, paired by prompt and by document: what `cst-bench compare` says in every format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.reporting.leaderboard.board import Column
from cst_bench.reporting.leaderboard.build import cell_of, columns_of, difference_of
from cst_bench.reporting.leaderboard.comparable import common_tasks, differing, same_documents
from cst_bench.numbers import number, p_value, signed, signed_ends
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.reporting.run_report import LETTERS, FLAGS
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference, holm

SCHEMA = 1


@dataclass(frozen=True)
class ComparedScore:
    """One score of both runs, and how they differ on what both were asked."""

    column: Column
    reference: float | None
    """Of the first run, over all that it was asked."""
    score: float | None
    """Of the second run."""
    difference: Difference
    """The second less the first."""
    unscored: tuple[int, int]
    """Responses without a verdict, of the first run and of the second."""
    flags: tuple[str, ...]
    """Footnotes of either run's score, such as `unscored`."""
    p_holm: float | None = None
    """Corrected for the number of scores, averages and joint compliance left out: they follow from the others."""


@dataclass(frozen=True)
class Comparison:
    """The second run less the first."""

    reference: str
    label: str
    scores: Sequence[ComparedScore]
    different: Sequence[str]
    """Where tests or judges differ, if that was allowed."""
    missing: Sequence[str]
    """Tasks that only one of the runs has, or that both have and can't be paired in."""

    @property
    def flags(self) -> dict[str, str]:
        """Footnotes that are used, and what they mean."""
        used = {flag for one in self.scores for flag in one.flags}
        return {flag: text for flag, text in FLAGS.items() if flag in used}


def compare_runs(reference: StoredRun, run: StoredRun, *, allow_different: bool = False) -> Comparison:
    """Compares `run` with `reference` in every score that both have.

    Raises:
        UserError: they have no task in common; or they were not asked the same, or not judged by the same judge, and
            that is not allowed.
    """
    if not common_tasks(run, reference):
        raise UserError(f"{reference.folder} and {run.folder} have no task in common: there is nothing to compare")
    different = differing(run, reference)
    if different and not allow_different:
        raise UserError(
            f"{run.folder} can't be compared with {reference.folder}: {'; '.join(different)}; "
            "--allow-different compares what both have, and says so"
        )
    unpaired = [task for task in _capabilities_of_both(reference, run) if not same_documents(reference, run, task)]
    found = []
    for column in columns_of([reference, run]):
        ours, theirs = cell_of(run, column), cell_of(reference, column)
        if ours is None or theirs is None or column.task in unpaired:
            continue
        if column.kind == "capability_average" and unpaired:
            continue
        difference = difference_of(run, reference, column)
        if difference is not None:
            flags = tuple(dict.fromkeys((*theirs.flags, *ours.flags)))
            unscored = (theirs.unscored, ours.unscored)
            found.append(ComparedScore(column, theirs.score, ours.score, difference, unscored, flags))
    labels = [one.label for one in (reference, run)]
    if labels[0] == labels[1]:
        labels = [f"{one.label} ({one.folder.name})" for one in (reference, run)]
    return Comparison(labels[0], labels[1], _corrected(found), different, _missing(reference, run, unpaired))


def _capabilities_of_both(reference: StoredRun, run: StoredRun) -> list[str]:
    return [task for task in run.outcomes["capabilities"] if task in reference.outcomes["capabilities"]]


def _corrected(scores: Sequence[ComparedScore]) -> list[ComparedScore]:
    """Holm over configurations and capabilities."""
    single = [one for one in scores if one.column.kind in ("compliance", "capability") and one.difference.p is not None]
    corrected = dict(zip(map(id, single), holm([one.difference.p or 0.0 for one in single]), strict=True))
    return [dataclasses.replace(one, p_holm=corrected.get(id(one))) for one in scores]


def _missing(reference: StoredRun, run: StoredRun, unpaired: Sequence[str]) -> list[str]:
    both = set(common_tasks(run, reference))
    return [f"{task} (other documents)" for task in unpaired] + [
        f"{task} (only {one.label})"
        for one in (reference, run)
        for part in ("compliance", "capabilities")
        for task in one.outcomes[part]
        if task not in both
    ]


def compare_markdown(found: Comparison, gates: Sequence[str] = ()) -> str:
    """The comparison as Markdown, every flip by its prompt's id; `gates` are what the gates came to."""
    environment = markdown_environment(content_root() / "reports" / "templates")
    environment.filters.update(
        score=lambda value, column: Markup(number(value, 100 if column.percent else 1)),
        signed=lambda value, column: Markup(signed(value, 100 if column.percent else 1)),
        signed_ends=lambda interval, column: Markup(signed_ends(interval, 100 if column.percent else 1)),
        p_value=lambda value: Markup(p_value(value)),
        letters=lambda flags: Markup("".join(f"<sup>{LETTERS[flag]}</sup>" for flag in flags)),
    )
    return environment.get_template("compare.md.j2").render(found=found, gates=gates)


def compare_json(found: Comparison, gates: Sequence[dict[str, Any]] = ()) -> str:
    """The comparison as JSON, in full precision; scores and differences are shares."""
    content = {
        "schema": SCHEMA,
        "reference": found.reference,
        "run": found.label,
        "different": list(found.different),
        "missing": list(found.missing),
        "flags": found.flags,
        "scores": {one.column.key: _plain(one) for one in found.scores},
        "gates": list(gates),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(one: ComparedScore) -> dict[str, Any]:
    return {
        "title": one.column.title,
        "task": one.column.task,
        "kind": one.column.kind,
        "reference": one.reference,
        "score": one.score,
        "unscored": list(one.unscored),
        "flags": list(one.flags),
        **asdict(one.difference),
        "p_holm": one.p_holm,
    }
