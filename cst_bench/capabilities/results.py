"""A capability task's result: on disk in lm-eval's own form, and the one score that is reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.errors import CstBenchError
from cst_bench.files import digest, write_text

_VARYING = ("date", "total_evaluation_time_seconds", "git_hash", "pretty_env_info", "start_time", "end_time")
"""Keys of lm-eval's results that change from run to run; `run.json` has what matters of them."""


@dataclass(frozen=True)
class CapabilityResult:
    """The score of a capability task, a share in 0 to 1, with lm-eval's standard error; None is undefined."""

    task: str
    metric: str
    score: float | None
    stderr: float | None
    n: int
    documents_sha256: str
    """Over lm-eval's hashes of the documents and of the prompts with their shots: other data, other hash."""
    fallback: str | None
    """Why shared-prefix scoring was left for lm-eval's stock way; None if it was not."""
    results: Mapping[str, Any]
    """lm-eval's own results, less what changes from run to run."""
    samples: Mapping[str, list[dict[str, Any]]]
    """lm-eval's own samples by (sub)task; empty when loaded from disk."""


def make_result(task: CapabilityTask, raw: Mapping[str, Any], fallback: str | None) -> CapabilityResult:
    """From what `simple_evaluate` returns.

    Raises:
        CstBenchError: lm-eval reports no such metric for the task.
    """
    from lm_eval.utils import handle_non_serializable

    samples: dict[str, list[dict[str, Any]]] = dict(raw.get("samples", {}))
    kept = {key: value for key, value in raw.items() if key not in (*_VARYING, "samples")}
    results = json.loads(json.dumps(kept, default=handle_non_serializable, sort_keys=True))
    found = {**results["results"], **results.get("groups", {})}.get(task.lm_eval, {})
    key = f"{task.metric},none"
    if key not in found:
        known = ", ".join(sorted(name.split(",")[0] for name in found if "stderr" not in name))
        raise CstBenchError(f"lm-eval reports no {task.metric} for {task.lm_eval}, only {known}")
    hashes = sorted((name, s["doc_hash"], s["prompt_hash"]) for name, of in samples.items() for s in of)
    return CapabilityResult(
        task=task.name,
        metric=task.metric,
        score=_number(found[key]),
        stderr=_number(found.get(f"{task.metric}_stderr,none")),
        n=sum(len({sample["doc_id"] for sample in of}) for of in samples.values()),
        documents_sha256=digest(hashes),
        fallback=fallback,
        results=results,
        samples=samples,
    )


def save(result: CapabilityResult, folder: Path) -> None:
    """Writes `TASK.samples.jsonl` and then `TASK.json`, whose presence says that the task is finished."""
    from lm_eval.utils import handle_non_serializable

    lines = [
        json.dumps({"task": name, **sample}, default=handle_non_serializable, ensure_ascii=False)
        for name, samples in result.samples.items()
        for sample in samples
    ]
    write_text(folder / f"{result.task}.samples.jsonl", "".join(f"{line}\n" for line in lines))
    summary = {
        "task": result.task,
        "metric": result.metric,
        "score": result.score,
        "stderr": result.stderr,
        "n": result.n,
        "documents_sha256": result.documents_sha256,
        "fallback": result.fallback,
    }
    # lm-eval's own keys at the top, ours under one, so that its tools read the file as theirs
    text = json.dumps({**result.results, "cst_bench": summary}, indent=2, ensure_ascii=False, sort_keys=True)
    write_text(folder / f"{result.task}.json", f"{text}\n")


def load(folder: Path, task: str) -> CapabilityResult | None:
    """The result of a finished task, by its name, without its samples; None if it isn't finished."""
    path = folder / f"{task}.json"
    if not path.is_file():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    return CapabilityResult(**results.pop("cst_bench"), results=results, samples={})


def document_scores(folder: Path, task: str) -> dict[str, float]:
    """What each document of a finished task scored in the metric that is reported, by (sub)task and number.

    Their mean is the score: subtasks weigh by their documents.
    """
    result = load(folder, task)
    if result is None:
        raise CstBenchError(f"{folder} has no result of {task}")
    found = {}
    for line in (folder / f"{task}.samples.jsonl").read_text(encoding="utf-8").split("\n"):
        if line:
            sample = json.loads(line)
            if sample.get("filter", "none") == "none":
                found[f"{sample['task']}/{sample['doc_id']}"] = float(sample[result.metric])
    return found


def _number(value: Any) -> float | None:
    """lm-eval writes `N/A` for what it can't tell, as the standard error of a single document."""
    if isinstance(value, str) or value is None or value != value:
        return None
    return float(value)
