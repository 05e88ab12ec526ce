"""How a run was made, as (what, value): checkpoint, tasks, judges, versions, time, tokens, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from cst_bench.reporting.leaderboard.board import RunFacts
from cst_bench.reporting.stored_run import StoredRun

_CHECKPOINT = (
    ("kind", "kind"),
    ("revision", "revision"),
    ("architecture", "architecture"),
    ("base", "base"),
    ("weights_sha256", "weights, SHA-256"),
    ("adapter_sha256", "adapter, SHA-256"),
    ("dtype", "dtype"),
    ("quantization", "quantization"),
    ("system_as", "system prompt as"),
)
_TRAINING = (
    ("method", "method"),
    ("recipe", "recipe"),
    ("recipe_sha256", "recipe, SHA-256"),
    ("seed", "seed"),
    ("data_sha256", "rows, SHA-256"),
)


def run_facts(run: StoredRun, label: str) -> RunFacts:
    """All that decided a run's results, and what it took."""
    return RunFacts(label, [(what, str(value)) for what, value in _facts(run) if value not in (None, "", [], {})])


def _facts(run: StoredRun) -> Iterator[tuple[str, Any]]:
    settings, status = run.settings, run.manifest["status"]
    for key, what in _CHECKPOINT:
        yield f"checkpoint, {what}", run.checkpoint.get(key)
    for key, what in _TRAINING:
        yield f"trained by cst-bench, {what}", None if run.training is None else run.training.get(key)
    yield "suite", f"{settings['suite']['name']}, version {settings['suite']['version']}"
    for task, of in settings["compliance"].items():
        yield f"{task}", f"version {of['version']}, wording {of['wording']}, {of['prompts']} prompts of {of['data']}"
        yield f"{task}, data SHA-256", of["data_sha256"]
        yield (
            f"{task}, judge",
            ", ".join(
                filter(None, (of["judge"]["name"], f"version {of['judge']['version']}", of["judge"].get("model")))
            ),
        )
        yield f"{task}, judge SHA-256", of["judge"]["sha256"]
        if of["generation"]:
            yield f"{task}, generation", ", ".join(f"{key} {value}" for key, value in of["generation"].items())
    for task, of in settings["capabilities"].items():
        result = run.outcomes["capabilities"].get(task)
        yield f"{task}", f"version {of['version']}, {run.scores['capabilities'][task]['metric'] or 'no result'}"
        yield f"{task}, documents SHA-256", None if result is None else result["documents_sha256"]
    yield "seed", settings["seed"]
    yield "limit", settings["limit"]
    yield "split", settings["split"]
    yield from _spent(status)
    yield from settings["packages"].items()


def _spent(status: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Time, tokens and cost over all parts; what isn't known is left out."""
    compliance = list(status["compliance"].values())
    capabilities = list(status["capabilities"].values())
    judging = [part.get("judging", {}) for part in compliance]
    times = {
        "responses": sum(part.get("seconds", 0) for part in compliance),
        "verdicts": sum(part.get("seconds", 0) for part in judging),
        "capabilities": sum(part.get("seconds", 0) for part in capabilities),
    }
    for what, seconds in times.items():
        if seconds:
            yield f"time, {what}", timedelta(seconds=round(seconds))
    usage = [part.get("usage", {}) for part in compliance]
    for what, parts in (("responses", usage), ("verdicts", judging)):
        counts = [sum(part.get(key, 0) or 0 for part in parts) for key in ("input_tokens", "output_tokens")]
        if any(counts):
            yield f"tokens, {what}", f"{counts[0]:,} in, {counts[1]:,} out"
    costs = [part["cost_usd"] for part in judging if part.get("cost_usd") is not None]
    if costs:
        yield "cost, verdicts", f"{sum(costs):.2f} USD"
