"""Judge error in the difference of two runs: corrected by people's labels of both, or bounded by the judge's card."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cst_bench.judging.card import BY_CONSTRUCTION
from cst_bench.record import CalibrationSummary
from cst_bench.reporting.stored_run import JOINT, StoredRun
from cst_bench.statistics.correction import rates_between_models
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.labelled_pairs import Pair, judge_error_bounds, labelled_difference, largest_rate
from cst_bench.statistics.paired import Difference

Labels = Mapping[str, bool | None]
"""Prompt id → whether people saw what was asked; None is unsure."""


def corrected_difference(run: StoredRun, base: StoredRun, task: str, configuration: str) -> Difference | None:
    """Return `run` minus `base` by people's labels of both runs' responses; None where too few prompts have both.

    Args:
        run: A run.
        base: Another one.
        task: Compliance task.
        configuration: Its configuration, or `joint`.
    """
    ours, theirs = run.labelled(task, configuration), base.labelled(task, configuration)
    if not ours.shown or not theirs.shown:
        return None
    complied, theirs_complied = run.complied(task, configuration), base.complied(task, configuration)
    prompts = sorted(complied.keys() & theirs_complied.keys())
    verdicts = {prompt: (_verdict(complied[prompt]), _verdict(theirs_complied[prompt])) for prompt in prompts}
    labels: dict[str, Pair] = {
        prompt: (ours.shown[prompt], theirs.shown[prompt])
        for prompt in prompts
        if prompt in ours.shown and prompt in theirs.shown
    }
    drawn_from = {prompt: (ours.drawn_from.get(prompt), theirs.drawn_from.get(prompt)) for prompt in prompts}
    return labelled_difference(verdicts, labels, drawn_from)


def _verdict(complied: float | None) -> bool | None:
    return None if complied is None else complied > 0.5


def difference_bounds(run: StoredRun, base: StoredRun, task: str, configuration: str) -> Interval | None:
    """Return how small and how large the true difference in a configuration may be, by the cards of both judges.

    None for `joint`, where a run has no score, and where a judge has no card with labels of responses by a reader.
    """
    if configuration == JOINT:
        return None
    scores = [side.scores.compliance[task].configurations[configuration].score for side in (run, base)]
    rates = [_rates(side, task, configuration) for side in (run, base)]
    if scores[0] is None or scores[1] is None or rates[0] is None or rates[0] != rates[1]:
        return None
    missed, alarms = rates[0]
    return judge_error_bounds(scores[0], scores[1], missed=missed, alarms=alarms)


def _rates(run: StoredRun, task: str, configuration: str) -> tuple[float, float] | None:
    """Return the largest shares of misses and of false alarms that the card allows, at 97.5 %.

    With several models on the card, they are those of another model like these.
    """
    card: CalibrationSummary | None = run.scores.judges[task].calibration
    if card is None or card.counts is None or any(by.startswith(BY_CONSTRUCTION) for by in card.by):
        return None
    asked = run.configurations(task)[configuration]
    counts = card.counts.get(asked)
    if counts is None or not counts.tp + counts.fn or not counts.fp + counts.tn:
        return None
    models = [model[asked] for model in card.by_model.values() if asked in model]
    if len(models) < 2:
        return largest_rate(counts.tp + counts.fn, counts.fn), largest_rate(counts.fp + counts.tn, counts.fp)
    rates = rates_between_models([(model.tp, model.fn, model.fp, model.tn) for model in models])
    missed, alarms = 1 - np.quantile(rates.drawn_sensitivity, 0.025), np.quantile(rates.drawn_false_alarm, 0.975)
    return float(missed), float(alarms)
