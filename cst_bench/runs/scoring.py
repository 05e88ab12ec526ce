"""`scores.json`: all that reports, comparisons and other programs read about the outcome of a run.

    schema        1
    checkpoint    identity of the weights (label, kind, revision, SHA-256, …)
    suite         name, version, title
    judges        task → name, version, kind, SHA-256, source, what its kind says of it (model, …);
                  calibration: what its card says (macro_f1, interval, n, by, …), or null; calibrated: whether the
                  card's macro F1 reaches what the run asks for
    compliance    task → configuration → score, n, unscored, interval, behaviours, reasons; corrected: the score with
                  the judge's error in it (method, score, interval, labelled, assumes), or null
                  task → joint → score, n, unscored, interval            (tasks with two or more configurations)
                  task → reference → n, unscored, behaviours             (no system prompt; never scored)
    capabilities  task → title, metric, score, stderr, interval, n; unavailable: the reason if there is none
    averages      compliance → score, interval, over; capabilities → score, stderr, interval, over

Scores are shares in 0 to 1; what is undefined is null, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.scores import Outcome, summarise, wilson
from cst_bench.judging.card import calibrated
from cst_bench.statistics.correction import corrected_scores

SCHEMA = 1


def make_scores(
    settings: Mapping[str, Any],
    outcomes: Mapping[str, Sequence[Outcome]],
    calibrations: Mapping[str, Mapping[str, Any] | None],
    results: Mapping[str, CapabilityResult | str],
    labels: Mapping[tuple[str, str, str], str] | None = None,
) -> dict[str, Any]:
    """The content of `scores.json` from the manifest's settings and what was found, each by its task.

    A calibration is what a judge's card says, or None; a capability is its result, or the reason why there is none.
    Labels are people's: (task, prompt id, configuration) → behaviour.
    """
    compliance = {
        name: summarise(outcomes[name], list(task["configurations"])) for name, task in settings["compliance"].items()
    }
    for name, task in settings["compliance"].items():
        own = {(prompt, arm): label for (of, prompt, arm), label in (labels or {}).items() if of == name}
        calibration = calibrations[name]
        counts = None if calibration is None else calibration["counts"]
        for arm, corrected in corrected_scores(outcomes[name], task["configurations"], counts, own).items():
            compliance[name][arm]["corrected"] = corrected
    capabilities = {
        name: _capability(task["title"], results[name]) for name, task in settings["capabilities"].items()
    }
    return {
        "schema": SCHEMA,
        "checkpoint": dict(settings["checkpoint"]),
        "suite": dict(settings["suite"]),
        "judges": {
            name: {
                **task["judge"],
                "calibration": calibrations[name],
                "calibrated": calibrated(calibrations[name], settings["min_judge_f1"]),
            }
            for name, task in settings["compliance"].items()
        },
        "compliance": compliance,
        "capabilities": capabilities,
        "averages": {
            "compliance": average_compliance(compliance, settings["average"]),
            "capabilities": average_capabilities(capabilities),
        },
    }


def _capability(title: str, result: CapabilityResult | str) -> dict[str, Any]:
    if isinstance(result, str):
        nothing = {"metric": None, "score": None, "stderr": None, "interval": None, "n": 0}
        return {"title": title, **nothing, "unavailable": result}
    return {
        "title": title,
        "metric": result.metric,
        "score": result.score,
        "stderr": result.stderr,
        "interval": _interval(result),
        "n": result.n,
    }


def _interval(result: CapabilityResult) -> list[float] | None:
    """1.96 standard errors; Wilson's where all or no documents are right, since lm-eval's error is 0 there."""
    if result.score in (0.0, 1.0):
        return wilson(int(result.score) * result.n, result.n)
    return _normal(result.score, result.stderr)


def _normal(score: float | None, stderr: float | None) -> list[float] | None:
    if score is None or stderr is None:
        return None
    return [max(0.0, score - 1.96 * stderr), min(1.0, score + 1.96 * stderr)]


def average_compliance(compliance: Mapping[str, Mapping[str, Any]], over: Sequence[str]) -> dict[str, Any] | None:
    """The paper's Avg. over configurations, as `mean_score`; None unless the run has all of them."""
    found = {name: task[name] for task in compliance.values() for name in over if name in task}
    if not over or set(found) != set(over):
        return None
    return {**mean_score([found[name] for name in over]), "over": list(over)}


def mean_score(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of scores and its interval, each None if some score has none.

    The interval combines those of the scores by MOVER (Zou and Donner 2008, Statistics in Medicine 27), taking the
    scores as independent.
    """
    if any(part["score"] is None for part in parts):
        return {"score": None, "interval": None}
    mean = sum(part["score"] for part in parts) / len(parts)
    if any(part["interval"] is None for part in parts):
        return {"score": mean, "interval": None}
    below = math.hypot(*(part["score"] - part["interval"][0] for part in parts)) / len(parts)
    above = math.hypot(*(part["interval"][1] - part["score"] for part in parts)) / len(parts)
    return {"score": mean, "interval": [mean - below, mean + above]}


def average_capabilities(capabilities: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The mean over the capability tasks and its standard error; None if there are none, undefined if one is."""
    if not capabilities:
        return None
    parts = list(capabilities.values())
    if any(part["score"] is None for part in parts):
        return {"score": None, "stderr": None, "interval": None, "over": list(capabilities)}
    errors = [part["stderr"] for part in parts]
    stderr = None if None in errors else math.hypot(*errors) / len(parts)
    mean = sum(part["score"] for part in parts) / len(parts)
    interval = _normal(mean, stderr)
    if stderr is not None and 0 in errors:  # all or none are right, and the task's own interval is Wilson's
        interval = mean_score(parts)["interval"]
    return {"score": mean, "stderr": stderr, "interval": interval, "over": list(capabilities)}
