"""Side effects in tables: lengths and faults of responses and KL divergence, by task and configuration, for each model.

Nothing here is escaped or rounded: formats do that. None of it is good or bad in itself, so nothing is ranked.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.numbers import ends, number
from cst_bench.record import KL, SHARES, SideEffect, SideEffectName
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference, bootstrap_difference, shares_difference

NO_SYSTEM_PROMPT = "no system prompt"


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    name: SideEffectName
    title: str
    digits: int
    """Decimal places."""


MEASURES = (
    Measure("tokens", "Tokens", 1),
    Measure("words", "Words", 1),
    Measure("cut_off", "Cut off", 2),
    Measure("repeated", "Repeated", 2),
    Measure("degenerate", "Degenerate", 2),
    Measure("kl_first_token", "KL, first token", 3),
    Measure("kl_per_token", "KL per token", 3),
)


@dataclass(frozen=True)
class SideEffectCell:
    """A mean over prompts."""

    mean: float
    interval: Interval | None
    """95 % interval; None for a mean over seeds, too."""
    median: float | None
    """Median over prompts; None for shares, and for a mean over seeds."""
    prompts: int
    difference: Difference | None = None
    """Paired difference to the base of the same group; for a mean over seeds without interval and p value."""
    seed_range: Interval | None = None
    """Lowest and highest mean over training seeds; None for a single run."""

    def spread(self, measure: Measure) -> list[str]:
        """Return what stands below the mean: interval and median, or the range over seeds."""
        if self.seed_range is not None:
            return [ends(self.seed_range, 1, measure.digits), "range of seeds"]
        interval = [] if self.interval is None else [ends(self.interval, 1, measure.digits)]
        return interval + ([] if self.median is None else [f"median {number(self.median, 1, measure.digits)}"])


@dataclass(frozen=True)
class SideEffectRow:
    """One model under one configuration of a task."""

    task: str
    configuration: str
    """`no system prompt` for the reference."""
    label: str
    """Name of the model."""
    title: str
    """Title of the model in the table, such as `+ CST` below its base."""
    cells: Mapping[SideEffectName, SideEffectCell]


@dataclass(frozen=True)
class SideEffectTable:
    """Side effects of the models of a section: for each task and configuration, its models."""

    measures: Sequence[Measure]
    """Those that some row has."""
    rows: Sequence[SideEffectRow]
    kl_bases: Sequence[str]
    """Labels of the bases that KL divergences are from; empty if there are none."""


@dataclass(frozen=True)
class ModelRuns:
    """A line of the report: the runs of a model or of a method by seed, and the run of its base."""

    label: str
    title: str
    members: Sequence[StoredRun]
    base: StoredRun | None
    """None for a base, and where the report does not have it."""


def make_side_effects(models: Sequence[ModelRuns]) -> SideEffectTable | None:
    """Return the side effects of models; None if no run has any."""
    rows = [
        SideEffectRow(task, configuration_title(name), model.label, model.title, _cells(model, task, name))
        for task, name in configurations_of(run for model in models for run in model.members)
        for model in models
    ]
    rows = [row for row in rows if row.cells]
    if not rows:
        return None
    bases = [run.settings.divergence.base.label for m in models for run in m.members if run.settings.divergence]
    return SideEffectTable(
        [measure for measure in MEASURES if any(measure.name in row.cells for row in rows)],
        rows,
        list(dict.fromkeys(bases)),
    )


def configurations_of(runs: Iterable[StoredRun]) -> Iterator[tuple[str, str]]:
    """Yield (task, configuration) of all runs in the order of the tasks; with no system prompt comes last."""
    names: dict[str, dict[str, None]] = {}
    for run in runs:
        for task, scores in run.scores.compliance.items():
            names.setdefault(task, {}).update(dict.fromkeys(scores.configurations))
    for task, configurations in names.items():
        yield from ((task, name) for name in (*configurations, REFERENCE))


def configuration_title(name: str) -> str:
    """Return the name of a configuration in reports."""
    return NO_SYSTEM_PROMPT if name == REFERENCE else name


def _cells(model: ModelRuns, task: str, configuration: str) -> dict[SideEffectName, SideEffectCell]:
    cells: dict[SideEffectName, SideEffectCell] = {}
    for measure in MEASURES:
        name = measure.name
        found = [side_effect_of(run, task, configuration, name) for run in model.members]
        effects = [effect for effect in found if effect is not None]
        if not effects or len(effects) < len(model.members):
            continue
        base = None if name in KL else model.base  # a KL divergence is a difference to the base already
        changes = [
            None if base is None else side_effect_difference(run, base, task, configuration, name)
            for run in model.members
        ]
        if len(effects) == 1:
            (effect,), (change,) = effects, changes
            median = None if name in SHARES else effect.median
            cells[name] = SideEffectCell(effect.mean, effect.interval, median, effect.prompts, change)
            continue
        means = [effect.mean for effect in effects]
        cells[name] = SideEffectCell(
            statistics.fmean(means),
            None,
            None,
            effects[0].prompts,
            _mean_difference(changes),
            (min(means), max(means)),
        )
    return cells


def side_effect_of(run: StoredRun, task: str, configuration: str, name: SideEffectName) -> SideEffect | None:
    """Return one side effect of a run; None if it was not measured."""
    scores = run.scores.compliance.get(task)
    return None if scores is None else scores.side_effects.get(configuration, {}).get(name)


def _mean_difference(changes: Sequence[Difference | None]) -> Difference | None:
    """Return the mean of the differences of several seeds, without interval and test."""
    values = [change.difference for change in changes if change is not None and change.difference is not None]
    if not values or len(values) < len(changes) or changes[0] is None:
        return None
    return Difference(statistics.fmean(values), None, None, changes[0].n, changes[0].test)


def side_effect_difference(
    run: StoredRun, base: StoredRun, task: str, configuration: str, name: SideEffectName
) -> Difference | None:
    """Return `run` minus `base` in one side effect, paired by prompt; None if one of them has none.

    KL divergences are compared only where they are from the same base.
    """
    if name in KL and _kl_base(run) != _kl_base(base):
        return None
    ours, theirs = (_by_prompt(stored, task, configuration, name) for stored in (run, base))
    common = ours.keys() & theirs.keys()
    if not common:
        return None
    if name not in SHARES:
        return bootstrap_difference([(ours, theirs)], largest=None)
    if {values[prompt] for values in (ours, theirs) for prompt in common} <= {0.0, 1.0}:
        return shares_difference(ours, theirs)
    return bootstrap_difference([(ours, theirs)])


def _by_prompt(run: StoredRun, task: str, configuration: str, name: SideEffectName) -> Mapping[str, float]:
    return run.outcomes.side_effects.get(task, {}).get(configuration, {}).get(name, {})


def _kl_base(run: StoredRun) -> str | None:
    divergence = run.settings.divergence
    return None if divergence is None else divergence.base.weights_sha256
