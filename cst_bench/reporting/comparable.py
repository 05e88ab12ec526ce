"""Which runs may be compared: those that were asked the same, and judged by the same judges."""

from __future__ import annotations

from collections.abc import Iterator

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.record import JudgeRecord
from cst_bench.reporting.stored_run import StoredRun


def common_tasks(run: StoredRun, other: StoredRun) -> list[str]:
    """Return the compliance tasks and capability tasks that both runs have results of."""
    compliance = [task for task in run.outcomes.compliance if task in other.outcomes.compliance]
    return [*compliance, *(task for task in run.outcomes.capabilities if task in other.outcomes.capabilities)]


def differing_tasks(run: StoredRun, other: StoredRun) -> str | None:
    """Return how the compliance tasks of two runs differ; None if they are the same."""
    ours, theirs = sorted(run.settings.compliance), sorted(other.settings.compliance)
    if ours == theirs:
        return None
    return f"other tasks ({', '.join(ours) or 'none'}, not {', '.join(theirs) or 'none'})"


def differing(run: StoredRun, other: StoredRun) -> list[str]:
    """List where the tests or judges of common tasks differ: `truthy: another judge (rules, not gpt)`."""
    return [
        f"{task}: {difference}"
        for task in common_tasks(run, other)
        for difference in (
            _compliance(run, other, task) if task in run.outcomes.compliance else _capability(run, other, task)
        )
    ]


def _compliance(run: StoredRun, other: StoredRun, task: str) -> Iterator[str]:
    ours, theirs = run.settings.compliance[task], other.settings.compliance[task]
    if (ours.version, ours.sha256) != (theirs.version, theirs.sha256):
        yield f"another version of the task ({ours.version}, not {theirs.version})"
    if ours.wording != theirs.wording:
        yield f"another wording ({ours.wording}, not {theirs.wording})"
    if ours.generation != theirs.generation:
        yield "other generation settings"
    engines = [_engine(stored) for stored in (run, other)]
    if engines[0] != engines[1]:
        yield f"responses by another engine ({engines[0]}, not {engines[1]})"
    if _prompts(run, task) != _prompts(other, task):
        counts = len(run.prompts(task)), len(other.prompts(task))
        yield f"other prompts ({counts[0]}, not {counts[1]})" if len(set(counts)) > 1 else "other prompts"
    if _judge(ours.judge) != _judge(theirs.judge):
        names = [judge.model or judge.name for judge in (ours.judge, theirs.judge)]
        detail = f" ({names[0]}, not {names[1]})" if len(set(names)) > 1 else ""
        yield f"another judge{detail}"
    elif ours.judge.response_check != theirs.judge.response_check:
        versions = [judge.judge.response_check or "none" for judge in (ours, theirs)]
        yield f"another check for degenerate responses (version {versions[0]}, not {versions[1]})"


def _engine(run: StoredRun) -> str:
    """Return what generated a run's responses. Two servers are told apart by what they are, not by their addresses."""
    engine = run.settings.engine
    return "in process" if engine is None else " ".join([engine.title, *engine.arguments])


def _scored_there(run: StoredRun) -> bool:
    engine = run.settings.engine
    return engine is not None and engine.capabilities


def _judge(judge: JudgeRecord) -> str:
    """Return what identifies a judge. For the labels of a file that is who labelled: each file has its own hash."""
    return judge.name if judge.kind == "labels" else judge.sha256


def _capability(run: StoredRun, other: StoredRun, task: str) -> Iterator[str]:
    if not same_documents(run, other, task):
        yield "other documents or shots"
    engines = [_engine(stored) if _scored_there(stored) else "in process" for stored in (run, other)]
    if engines[0] != engines[1]:
        yield f"log-likelihoods by another engine ({engines[0]}, not {engines[1]})"
    metrics = [stored.scores.capabilities[task].metric for stored in (run, other)]
    if metrics[0] != metrics[1]:
        yield f"another metric ({metrics[0]}, not {metrics[1]})"
    ours, theirs = (stored.settings.capabilities[task] for stored in (run, other))
    if (ours.version, ours.sha256, ours.definitions_sha256) != (
        theirs.version,
        theirs.sha256,
        theirs.definitions_sha256,
    ):
        yield f"another version of the task ({ours.version}, not {theirs.version})"


def same_documents(run: StoredRun, other: StoredRun, task: str) -> bool:
    """Return whether two runs scored a capability on the same documents: only then can it be paired by document."""
    ours, theirs = (stored.outcomes.capabilities.get(task) for stored in (run, other))
    return ours is not None and theirs is not None and ours.documents_sha256 == theirs.documents_sha256


def _prompts(run: StoredRun, task: str) -> dict[str, frozenset[str]]:
    by_configuration = run.outcomes.compliance[task]
    return {name: frozenset(ids) for name, ids in by_configuration.items() if name != REFERENCE}
