"""Whether two runs were asked the same, and judged by the same: only then may they be ranked or compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.reporting.stored_run import StoredRun


def common_tasks(run: StoredRun, other: StoredRun) -> list[str]:
    """Compliance tasks and capabilities that both runs have results of."""
    compliance = [task for task in run.outcomes["compliance"] if task in other.outcomes["compliance"]]
    return [*compliance, *(task for task in run.outcomes["capabilities"] if task in other.outcomes["capabilities"])]


def same_tasks(run: StoredRun, other: StoredRun) -> str | None:
    """None if both runs are of the same compliance tasks, else what they are of."""
    mine, theirs = (sorted(one.settings["compliance"]) for one in (run, other))
    return None if mine == theirs else f"other tasks ({', '.join(mine) or 'none'}, not {', '.join(theirs) or 'none'})"


def differing(run: StoredRun, other: StoredRun) -> list[str]:
    """Where the tests or judges of tasks that both have differ: `truthy: another judge (rules, not gpt)`."""
    return [
        f"{task}: {difference}"
        for task in common_tasks(run, other)
        for difference in (
            _compliance(run, other, task) if task in run.outcomes["compliance"] else _capability(run, other, task)
        )
    ]


def _compliance(run: StoredRun, other: StoredRun, task: str) -> Iterator[str]:
    mine, theirs = run.settings["compliance"][task], other.settings["compliance"][task]
    if (mine["version"], mine["sha256"]) != (theirs["version"], theirs["sha256"]):
        yield f"another version of the task ({mine['version']}, not {theirs['version']})"
    if mine["wording"] != theirs["wording"]:
        yield f"another wording ({mine['wording']}, not {theirs['wording']})"
    if mine["generation"] != theirs["generation"]:
        yield "other generation settings"
    if _prompts(run, task) != _prompts(other, task):
        counts = len(run.prompts(task)), len(other.prompts(task))
        yield f"other prompts ({counts[0]}, not {counts[1]})" if len(set(counts)) > 1 else "other prompts"
    if _judge(mine["judge"]) != _judge(theirs["judge"]):
        names = [str(judge.get("model") or judge["name"]) for judge in (mine["judge"], theirs["judge"])]
        said = f" ({names[0]}, not {names[1]})" if len(set(names)) > 1 else ""
        yield f"another judge{said}"


def _judge(settings: Mapping[str, Any]) -> str:
    """What names a judge. Labels that came with a file go by who gave them: each file's have a hash of their own."""
    return str(settings["name"] if settings["kind"] == "labels" else settings["sha256"])


def _capability(run: StoredRun, other: StoredRun, task: str) -> Iterator[str]:
    if not same_documents(run, other, task):
        yield "other documents or shots"
    metrics = [one.scores["capabilities"][task].get("metric") for one in (run, other)]
    if metrics[0] != metrics[1]:
        yield f"another metric ({metrics[0]}, not {metrics[1]})"
    mine, theirs = (one.settings["capabilities"][task] for one in (run, other))
    if any(mine[name] != theirs[name] for name in ("version", "sha256", "definitions_sha256")):
        yield f"another version of the task ({mine['version']}, not {theirs['version']})"


def same_documents(run: StoredRun, other: StoredRun, task: str) -> bool:
    """Whether two runs have results of a capability on the same documents: only then can it be paired by document."""
    mine, theirs = (one.outcomes["capabilities"].get(task) for one in (run, other))
    return None not in (mine, theirs) and mine["documents_sha256"] == theirs["documents_sha256"]


def _prompts(run: StoredRun, task: str) -> dict[str, frozenset[str]]:
    arms = run.outcomes["compliance"][task]
    return {name: frozenset(arm) for name, arm in arms.items() if name != REFERENCE}
