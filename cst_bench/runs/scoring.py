"""From outcomes to `scores.json`: compliance, corrected scores, capabilities and averages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome, summarise
from cst_bench.judging.card import why_uncalibrated
from cst_bench.record import (
    Averages,
    AverageScore,
    CalibrationSummary,
    CapabilityScore,
    RunSettings,
    Scores,
    TaskJudge,
    TaskScores,
)
from cst_bench.runs.corrected_scores import JOINT, TaskLabels, corrected_scores
from cst_bench.runs.label_file import RunLabels
from cst_bench.runs.side_effects import Values, all_values, side_effects
from cst_bench.statistics.intervals import Interval, clustered_share, mean_interval, normal_interval, wilson


def make_scores(
    settings: RunSettings,
    outcomes: Mapping[str, Sequence[Outcome]],
    calibrations: Mapping[str, CalibrationSummary | None],
    results: Mapping[str, CapabilityResult | str],
    labels: RunLabels | None = None,
    divergences: Mapping[str, Values] | None = None,
) -> Scores:
    """Compute the scores of a run.

    Args:
        settings: Settings of the run.
        outcomes: Task → what its responses did.
        calibrations: Task → summary of its judge's card; None without a card.
        results: Capability task → its result, or the reason why there is none.
        labels: Labels by people; None without any.
        divergences: Task → KL divergences from a base; None if they are not measured.
    """
    reasons = {name: why_uncalibrated(calibrations[name], settings.min_judge_f1) for name in settings.compliance}
    compliance = {
        name: _corrected(
            summarise(outcomes[name], list(task.configurations)),
            outcomes[name],
            task.configurations,
            calibrations[name],
            reasons[name],
            _labels_of(name, labels or RunLabels()),
        )
        for name, task in settings.compliance.items()
    }
    for name, values in all_values(outcomes, divergences or {}).items():
        compliance[name] = compliance[name].model_copy(update={"side_effects": side_effects(values)})
    capabilities = {name: _capability(task.title, results[name]) for name, task in settings.capabilities.items()}
    return Scores(
        checkpoint=settings.checkpoint,
        suite=settings.suite,
        judges={
            name: TaskJudge(
                **dict(task.judge),
                calibration=calibrations[name],
                calibrated=not reasons[name],
                uncalibrated=reasons[name],
            )
            for name, task in settings.compliance.items()
        },
        compliance=compliance,
        capabilities=capabilities,
        averages=Averages(
            compliance=average_compliance(compliance, outcomes, settings.average),
            capabilities=average_capabilities(capabilities),
        ),
    )


def _labels_of(task: str, labels: RunLabels) -> TaskLabels:
    return TaskLabels(
        {key[1:]: votes for key, votes in labels.votes.items() if key[0] == task},
        {key[1:]: stratum for key, stratum in labels.strata.items() if key[0] == task},
    )


def _corrected(
    scores: TaskScores,
    outcomes: Sequence[Outcome],
    configurations: Mapping[str, str],
    calibration: CalibrationSummary | None,
    uncalibrated: Sequence[str],
    labels: TaskLabels,
) -> TaskScores:
    corrected = corrected_scores(outcomes, configurations, calibration, labels, uncalibrated)
    return scores.model_copy(
        update={
            "configurations": {
                name: score.model_copy(update={"corrected": corrected.get(name)})
                for name, score in scores.configurations.items()
            },
            "joint": scores.joint and scores.joint.model_copy(update={"corrected": corrected.get(JOINT)}),
        }
    )


def _capability(title: str, result: CapabilityResult | str) -> CapabilityScore:
    if isinstance(result, str):
        return CapabilityScore(
            title=title, metric=None, score=None, stderr=None, interval=None, n=0, unavailable=result
        )
    return CapabilityScore(
        title=title,
        metric=result.metric,
        score=result.score,
        stderr=result.stderr,
        interval=_interval(result),
        n=result.n,
    )


def _interval(result: CapabilityResult) -> Interval | None:
    """Return 1.96 standard errors; Wilson's where all or no documents are right, since lm-eval's error is 0 there."""
    if result.score in (0.0, 1.0):
        return wilson(int(result.score) * result.n, result.n)
    return normal_interval(result.score, result.stderr)


def average_compliance(
    compliance: Mapping[str, TaskScores], outcomes: Mapping[str, Sequence[Outcome]], names: Sequence[str]
) -> AverageScore | None:
    """Average the scores of configurations, as the paper's Avg.; None unless the run has all of them.

    Configurations of one task share their prompts, which are its clusters; tasks are independent.
    """
    by_task = {
        task: [name for name in names if name in scores.configurations]
        for task, scores in compliance.items()
        if any(name in scores.configurations for name in names)
    }
    if not names or {name for of_task in by_task.values() for name in of_task} != set(names):
        return None
    means, intervals = [], []
    for task, of_task in by_task.items():
        mean, apart = mean_interval(
            [compliance[task].configurations[name].score for name in of_task],
            [compliance[task].configurations[name].interval for name in of_task],
        )
        means.append(mean)
        intervals.append(
            apart if mean is None or len(of_task) == 1 else _by_prompt(mean, outcomes[task], of_task) or apart
        )
    score, interval = mean_interval(means, intervals, [float(len(of_task)) for of_task in by_task.values()])
    return AverageScore(score=score, interval=interval, over=tuple(names))


def _by_prompt(mean: float, outcomes: Sequence[Outcome], names: Sequence[str]) -> Interval | None:
    """Return the interval of a mean over configurations, clustered by prompt; None without common prompts."""
    complied: dict[str, dict[str, list[bool]]] = {}
    for outcome in outcomes:
        if outcome.configuration in names and outcome.complied is not None:
            complied.setdefault(outcome.prompt_id, {}).setdefault(outcome.configuration, []).append(outcome.complied)
    common = [of_prompt for _, of_prompt in sorted(complied.items()) if len(of_prompt) == len(names)]
    shares = [fmean(fmean(values) for values in of_prompt.values()) for of_prompt in common]
    interval = clustered_share(shares, sum(len(values) for of_prompt in common for values in of_prompt.values()))
    if interval is None:
        return None
    center = fmean(shares)  # prompts that lack a verdict are in the mean, and not here
    return mean - (center - interval[0]), mean + (interval[1] - center)


def average_capabilities(capabilities: Mapping[str, CapabilityScore]) -> AverageScore | None:
    """Average the capability tasks; None if there are none, with an undefined score if some task has none."""
    if not capabilities:
        return None
    over = tuple(capabilities)
    parts = list(capabilities.values())
    scores = [part.score for part in parts if part.score is not None]
    if len(scores) < len(parts):
        return AverageScore(score=None, stderr=None, interval=None, over=over)
    errors = [part.stderr for part in parts if part.stderr is not None]
    stderr = math.hypot(*errors) / len(parts) if len(errors) == len(parts) else None
    mean = sum(scores) / len(parts)
    interval = normal_interval(mean, stderr)
    if stderr is not None and 0 in errors:  # all or none are right, and the task's own interval is Wilson's
        interval = mean_interval(scores, [part.interval for part in parts])[1]
    return AverageScore(score=mean, stderr=stderr, interval=interval, over=over)
