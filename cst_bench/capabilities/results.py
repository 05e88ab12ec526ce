"""A capability task's result: on disk in lm-eval's own format, and the one score that is reported."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from pydantic import ConfigDict, JsonValue

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.errors import CstBenchError, UserError
from cst_bench.files import digest, read_json, write_text
from cst_bench.record import Record, read_record_lines, validated

Sample = Mapping[str, object]
"""One of lm-eval's logged samples: `doc_id`, `doc_hash`, `prompt_hash`, `filter`, the metrics' values, …"""
Metrics = Mapping[str, float | str]
"""`METRIC,FILTER` and `METRIC_stderr,FILTER` → value, or `N/A`."""

_VARYING = ("date", "total_evaluation_time_seconds", "git_hash", "pretty_env_info", "start_time", "end_time")
"""Keys of lm-eval's results that change from run to run; `run.json` has what matters of them."""


_ADVICE = (
    "restore it from a copy; or delete the two files of this task and repeat the command that began the run, which "
    "scores it again (into a new folder with --out if the run is finished)"
)


class LmEvalResults(TypedDict, total=False):
    """Return value of lm-eval's `evaluate`: the keys that are used here."""

    results: Mapping[str, Metrics]
    """Metrics by (sub)task."""
    groups: Mapping[str, Metrics]
    samples: Mapping[str, Sequence[Sample]]
    """Samples by (sub)task."""
    config: Mapping[str, object]


@dataclass(frozen=True)
class CapabilityResult:
    """Score of a capability task, a share in 0 to 1, with lm-eval's standard error; None if undefined."""

    task: str
    metric: str
    score: float | None
    stderr: float | None
    n: int
    """Number of documents."""
    documents_sha256: str
    """SHA-256 of lm-eval's hashes of the documents and of the prompts with their shots: it identifies the data."""
    fallback: str | None
    """Reason why lm-eval's stock method scored instead of the shared-prefix one; None if it did not."""
    kernel: str | None = field(default=None, kw_only=True)
    """Attention kernel of the scoring, and why not a faster one; None if not known."""
    results: Mapping[str, JsonValue]
    """lm-eval's own results, without what changes from run to run."""
    samples: Mapping[str, Sequence[Sample]]
    """lm-eval's own samples by (sub)task; empty when loaded from disk."""


class _Summary(Record):
    """Our part of a result's file, under the key `cst_bench`."""

    task: str
    metric: str
    score: float | None
    stderr: float | None
    n: int
    documents_sha256: str
    fallback: str | None
    kernel: str | None = None


class _ScoredDocument(Record):
    """Keys that are read of one of lm-eval's samples; its other keys are kept."""

    model_config = ConfigDict(extra="allow")

    task: str
    doc_id: int
    filter: str = "none"


def make_result(task: CapabilityTask, raw: LmEvalResults, kernel: str | None, fallback: str | None) -> CapabilityResult:
    """Make the result of a task from the return value of lm-eval's `evaluate`.

    Raises:
        CstBenchError: lm-eval reports no such metric for the task.
    """
    from lm_eval.utils import handle_non_serializable

    samples = dict(raw.get("samples", {}))
    kept = {key: value for key, value in raw.items() if key not in (*_VARYING, "samples")}
    results = json.loads(json.dumps(kept, default=handle_non_serializable, sort_keys=True))
    metrics = {**results["results"], **results.get("groups", {})}.get(task.lm_eval, {})
    key = f"{task.metric},none"
    if key not in metrics:
        known = ", ".join(sorted(name.split(",")[0] for name in metrics if "stderr" not in name))
        raise CstBenchError(f"lm-eval reports no {task.metric} for {task.lm_eval}, only {known}")
    hashes = sorted((name, row["doc_hash"], row["prompt_hash"]) for name, rows in samples.items() for row in rows)
    return CapabilityResult(
        task=task.name,
        metric=task.metric,
        score=_number(metrics[key]),
        stderr=_number(metrics.get(f"{task.metric}_stderr,none")),
        n=sum(len({row["doc_id"] for row in rows}) for rows in samples.values()),
        documents_sha256=digest(hashes),
        fallback=fallback,
        kernel=kernel,
        results=results,
        samples=samples,
    )


def save(result: CapabilityResult, folder: Path) -> None:
    """Write `TASK.samples.jsonl` and then `TASK.json`, whose presence means that the task is finished."""
    from lm_eval.utils import handle_non_serializable

    lines = [
        json.dumps({"task": name, **sample}, default=handle_non_serializable, ensure_ascii=False)
        for name, samples in result.samples.items()
        for sample in samples
    ]
    write_text(folder / f"{result.task}.samples.jsonl", "".join(f"{line}\n" for line in lines))
    summary = {name: value for name, value in vars(result).items() if name not in ("results", "samples")}
    # lm-eval's own keys at the top, ours under one, so that its tools read the file as theirs
    text = json.dumps({**result.results, "cst_bench": summary}, indent=2, ensure_ascii=False, sort_keys=True)
    write_text(folder / f"{result.task}.json", f"{text}\n")


def load(folder: Path, task: str) -> CapabilityResult | None:
    """Load the result of a finished task, by its name, without its samples; None if it is not finished.

    Raises:
        UserError: its file is damaged.
    """
    path = folder / f"{task}.json"
    if not os.path.lexists(path):
        return None
    try:
        results = read_json(path)
    except UserError as error:
        raise UserError(f"{error}: {_ADVICE}") from None
    summary = results.pop("cst_bench", None) if isinstance(results, dict) else None
    checked = validated(_Summary, summary, str(path), _ADVICE)
    return CapabilityResult(**dict(checked), results=cast(dict[str, JsonValue], results), samples={})


def document_scores(folder: Path, task: str) -> dict[str, float]:
    """Load the reported metric of each document of a finished task, by `(sub)task/document number`.

    Their mean is the score: subtasks are weighted by their documents.

    Raises:
        CstBenchError: the task is not finished.
        UserError: a file of its result is missing or damaged, or the two are not of one result.
    """
    result = load(folder, task)
    if result is None:
        raise CstBenchError(f"{folder} has no result of {task}")
    path = folder / f"{task}.samples.jsonl"
    scores = {}
    for number, sample in enumerate(read_record_lines(path, _ScoredDocument, _ADVICE), 1):
        if sample.filter == "none":
            value = (sample.model_extra or {}).get(result.metric)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"{path}:{number} is damaged: no number as {result.metric}: {_ADVICE}")
            scores[f"{sample.task}/{sample.doc_id}"] = float(value)
    if len(scores) != result.n:
        raise UserError(f"{path} has {len(scores)} documents, and {task}.json is about {result.n}: {_ADVICE}")
    return scores


def _number(value: float | str | None) -> float | None:
    """Return a metric's value, None where lm-eval writes `N/A`, as for the standard error of a single document."""
    if isinstance(value, str) or value is None or value != value:
        return None
    return float(value)
