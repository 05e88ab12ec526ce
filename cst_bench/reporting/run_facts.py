"""How a run was made, as (name, value): checkpoint, tasks, judges, versions, time, tokens, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from cst_bench.record import SHORT, CompliancePart, ComplianceSettings, Judging, Status
from cst_bench.reporting.leaderboard.board import RunFacts
from cst_bench.reporting.stored_run import StoredRun

_CHECKPOINT = {
    "kind": "kind",
    "revision": "revision",
    "architecture": "architecture",
    "base": "base",
    "weights_sha256": "weights, SHA-256",
    "adapter_sha256": "adapter, SHA-256",
    "dtype": "dtype",
    "quantization": "quantization",
    "merged": "adapter merged in",
    "system_as": "system prompt as",
    "think_tokens": "markers of thoughts",
    "max_think_tokens": "most tokens of a thought",
}
_TRAINING = {
    "method": "method",
    "recipe": "recipe",
    "recipe_sha256": "recipe, SHA-256",
    "seed": "seed",
    "data_sha256": "rows, SHA-256",
}


def run_facts(run: StoredRun, label: str, *, spent: bool = True) -> RunFacts:
    """Return everything that decided a run's results, and with `spent` also time, tokens, cost and its receipt."""
    facts = [(name, str(value)) for name, value in _facts(run, spent) if value not in (None, "", [], {})]
    return RunFacts(label, facts, run.receipt)


def _facts(run: StoredRun, spent: bool) -> Iterator[tuple[str, object]]:
    settings = run.settings
    for field, name in _CHECKPOINT.items():
        value = getattr(run.checkpoint, field)
        yield f"checkpoint, {name}", " ".join(value) if isinstance(value, tuple) else value
    for field, name in _TRAINING.items():
        yield f"trained by cst-bench, {name}", None if run.training is None else getattr(run.training, field)
    yield "suite", f"{settings.suite.name}, version {settings.suite.version}"
    for task, compliance in settings.compliance.items():
        yield from _compliance_facts(task, compliance)
        part = run.manifest.status.compliance.get(task)
        yield f"{task}, thoughts", None if part is None else _thoughts(part)
    for task, capability in settings.capabilities.items():
        result = run.outcomes.capabilities.get(task)
        yield task, f"version {capability.version}, {run.scores.capabilities[task].metric or 'no result'}"
        yield f"{task}, softmax in", capability.softmax_dtype
        yield f"{task}, local data, SHA-256", capability.data_sha256
        yield f"{task}, documents SHA-256", None if result is None else result.documents_sha256
    yield "seed", settings.seed
    yield "limit", settings.limit
    yield "split", settings.split
    if spent:
        yield from _spent(run.manifest.status)
        yield "receipt", "none" if run.receipt is None else run.receipt[:SHORT]
    yield from settings.packages.items()


def _compliance_facts(task: str, settings: ComplianceSettings) -> Iterator[tuple[str, object]]:
    judge = settings.judge
    yield task, f"version {settings.version}, wording {settings.wording}, {settings.prompts} prompts of {settings.data}"
    yield f"{task}, data SHA-256", settings.data_sha256
    yield f"{task}, judge", ", ".join(filter(None, (judge.name, f"version {judge.version}", judge.model)))
    yield f"{task}, judge SHA-256", judge.sha256
    if settings.generation is not None:
        generation = (f"{name} {value}" for name, value in dict(settings.generation).items())
        yield f"{task}, generation", ", ".join(generation)


def _thoughts(part: CompliancePart) -> str | None:
    """Return how many responses had thoughts, which no judge was shown; None if none had."""
    usage = part.usage
    if usage is None or usage.thoughts is None:
        return None
    tokens = "" if usage.thought_tokens is None else f", {usage.thought_tokens:,} tokens"
    end = "" if usage.without_answer is None else f"; {usage.without_answer} have no answer"
    return f"in {usage.thoughts} of {part.responses} responses{tokens}{end}"


def _spent(status: Status) -> Iterator[tuple[str, object]]:
    """Yield time, tokens and cost over all parts; what is unknown is left out."""
    compliance = list(status.compliance.values())
    judging = [part.judging for part in compliance if part.judging is not None]
    seconds = {
        "responses": sum(part.seconds or 0 for part in compliance),
        "verdicts": sum(part.seconds for part in judging),
        "capabilities": sum(part.seconds or 0 for part in status.capabilities.values()),
    }
    for name, value in seconds.items():
        if value:
            yield f"time, {name}", timedelta(seconds=round(value))
    usage = [part.usage for part in compliance if part.usage is not None]
    calls = [part.spent for part in judging if part.spent is not None]
    tokens = {
        "responses": (sum(part.input_tokens for part in usage), sum(part.output_tokens for part in usage)),
        "verdicts": (sum(part.input_tokens for part in calls), sum(part.output_tokens for part in calls)),
    }
    for name, (read, written) in tokens.items():
        if read or written:
            yield f"tokens, {name}", f"{read:,} in, {written:,} out"
    notes = sum((Counter(part.notes) for part in calls), Counter[str]())
    yield "verdicts, notes", "; ".join(f"{note}: {count}" for note, count in sorted(notes.items()))
    costs = [part.cost_usd for part in calls if part.cost_usd is not None]
    if costs:
        yield "cost, verdicts", f"{sum(costs):.2f} USD"
    for task, part in status.compliance.items():
        if part.judging is not None and part.judging.stages:
            yield f"cascade, {task}", _cascade(part.judging)


def _cascade(judging: Judging) -> str:
    """Return how many calls a cascade made and saved, and about what they would have cost."""
    first, second, checks = (judging.stages.get(stage, 0) for stage in ("first", "second", "audit"))
    total = first + second + checks
    text = f"second judge asked about {second + checks} of {total} responses ({second} unsure, {checks} checks)"
    spent = judging.spent
    if spent is not None and spent.calls and spent.cost_usd:
        text += f", about {first * spent.cost_usd / spent.calls:.2f} USD saved"
    return text
