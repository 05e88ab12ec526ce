"""Strata of a run's responses, by their verdicts, from which random parts are drawn to be labelled.

`label_strata.json` keeps them as they were at the first draw: labels stay a random part of each stratum when
the run is judged again by another judge. It holds no text, and nothing of it is shown to labellers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cst_bench.errors import UserError
from cst_bench.record import CalibrationSummary, Outcomes, Record, RecordFile
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.runs.to_label import LabelKey, ToLabel, tasks_to_label
from cst_bench.statistics.allocation import PlannedStratum, allocate, expected_half_width, labels_needed
from cst_bench.statistics.correction import MIN_LABELLED

Class = Literal["yes", "no", "unscored"]
CLASSES: tuple[Class, ...] = ("yes", "no", "unscored")
"""Verdict of the judge on a response: it shows the behaviour that was asked for, it does not, or no verdict."""
_ASSUMED_ERROR = 0.2
"""Share of wrong verdicts to expect of a judge without a card."""
_ANY = 0.5
"""Share to expect where nothing is known: the one with the largest deviation."""
_Share = Annotated[float, Field(ge=0, le=1)]


class Strata(Record):
    """The responses of a configuration by class."""

    expected: tuple[_Share, _Share, _Share]
    """Expected share of compliant responses in each of `CLASSES`."""
    classes: dict[str, Class]
    """Prompt id → class."""

    @property
    def planned(self) -> tuple[PlannedStratum, ...]:
        """Return size and expectation of each of `CLASSES`."""
        sizes = Counter(self.classes.values())
        return tuple(PlannedStratum(sizes[name], share) for name, share in zip(CLASSES, self.expected, strict=True))


class LabelStrata(RecordFile):
    """The content of `label_strata.json`."""

    FILE_NAME: ClassVar[str] = "label_strata.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge label {folder}` writes it"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    strata: dict[str, dict[str, Strata]]
    """Task → configuration → its strata."""


@dataclass(frozen=True)
class LabelPlan:
    """How many responses of a configuration to label, by class."""

    task: str
    configuration: str
    sizes: tuple[int, ...]
    """Number of responses of each of `CLASSES`."""
    labels: tuple[int, ...] | None
    """Number of them to label; None if labelling all is not enough."""
    half_width: float | None
    """Expected half-width of the corrected score's 95 % interval; None with fewer labels than it takes."""


def class_of(complied: bool | None) -> Class:
    """Return the class of a response by its verdict: whether it does what was asked, None being unscored."""
    return "unscored" if complied is None else "yes" if complied else "no"


def read_strata(folder: RunFolder) -> dict[LabelKey, Class]:
    """Read the strata that responses were drawn from; empty if none was drawn from strata.

    Raises:
        UserError: the file is damaged.
    """
    return {
        (task, prompt, name): of_response
        for task, configurations in _kept(folder).items()
        for name, strata in configurations.items()
        for prompt, of_response in strata.classes.items()
    }


def strata_to_draw_from(folder: RunFolder, task: str) -> dict[str, Strata] | None:
    """Return configuration → strata: those kept, else by the run's verdicts; None if the task is not judged yet."""
    kept = _kept(folder).get(task)
    if kept is not None:
        return kept
    if folder.compliance(task).state != "judged" or not (folder.path / Outcomes.FILE_NAME).is_file():
        return None
    behaviours, card = Outcomes.read(folder.path).compliance[task], folder.compliance(task).calibration
    return {
        name: Strata(
            expected=_expected_shares(asked, card),
            classes={
                prompt: class_of(None if seen is None else seen == asked)
                for prompt, seen in behaviours.get(name, {}).items()
            },
        )
        for name, asked in folder.settings.compliance[task].configurations.items()
    }


def keep_strata(folder: RunFolder, task: str, strata: Mapping[str, Strata]) -> None:
    """Write a task's strata into the run folder, unless they are there."""
    kept = _kept(folder)
    if task not in kept:
        LabelStrata(strata={**kept, task: dict(strata)}).write(folder.path, compact=True)


def _expected_shares(asked: str, card: CalibrationSummary | None) -> tuple[float, float, float]:
    """Return what to expect of each of `CLASSES`: from the judge's card, or one wrong verdict in five without one."""
    counts = None if card is None or card.counts is None else card.counts.get(asked)
    if counts is None:
        return 1 - _ASSUMED_ERROR, _ASSUMED_ERROR, _ANY
    # half a count is added, since a card may have none
    precision, miss = (counts.tp + 0.5) / (counts.tp + counts.fp + 1), (counts.fn + 0.5) / (counts.fn + counts.tn + 1)
    return precision, miss, _ANY


def plan_width(run: Path, width: float, *, tasks: Sequence[str] = ()) -> list[LabelPlan]:
    """Plan the fewest labels of each configuration for a target precision.

    Args:
        run: A judged run.
        width: Target half-width of the 95 % interval.
        tasks: Only these compliance tasks; all if empty.

    Raises:
        UserError: the run is not judged yet, or has no such task.
    """
    folder = read_folder(run)
    wanted = tasks_to_label(folder, tasks)
    if any(strata_to_draw_from(folder, task) is None for task in wanted):
        raise UserError(f"{run} is not judged yet: run `cst-bench judge {run}`")
    return [_plan(task, name, strata, labels_needed(width, strata)) for task, name, strata in _expected(folder, wanted)]


def plan_drawn(run: Path, chosen: Sequence[ToLabel]) -> list[LabelPlan]:
    """Return the plan behind responses that `choose` drew; without tasks that are not judged yet."""
    drawn = Counter((response.key[0], response.key[2]) for response in chosen)
    tasks = list(dict.fromkeys(task for task, _ in drawn))
    return [
        _plan(task, name, strata, allocate(strata, drawn[task, name]))
        for task, name, strata in _expected(read_folder(run), tasks)
    ]


def _plan(task: str, name: str, strata: Sequence[PlannedStratum], labels: tuple[int, ...] | None) -> LabelPlan:
    enough = labels is not None and sum(labels) >= MIN_LABELLED
    half_width = expected_half_width(strata, labels) if labels is not None and enough else None
    return LabelPlan(task, name, tuple(stratum.n for stratum in strata), labels, half_width)


def _expected(folder: RunFolder, tasks: Sequence[str]) -> Iterator[tuple[str, str, tuple[PlannedStratum, ...]]]:
    """Yield task, configuration and what to expect of its classes, of tasks that are judged."""
    for task in tasks:
        for name, strata in (strata_to_draw_from(folder, task) or {}).items():
            if strata.classes:
                yield task, name, strata.planned


def _kept(folder: RunFolder) -> dict[str, dict[str, Strata]]:
    return LabelStrata.read(folder.path).strata if (folder.path / LabelStrata.FILE_NAME).is_file() else {}
