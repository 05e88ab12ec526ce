"""Judge the responses in an Inspect log, and read what was judged. No more than a chunk of samples is in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.stored_samples import (
    JUDGED_SUFFIX,
    SampleKey,
    chunks,
    explained_log,
    read_samples,
    sample_keys,
)
from cst_bench.event_loop import run_to_end
from cst_bench.files import canonical_json
from cst_bench.judging import ask, total_spent
from cst_bench.record import Spent

if TYPE_CHECKING:
    from inspect_ai.log import EvalResults
    from pydantic import JsonValue

    from cst_bench.judging import Judge, Verdict


def judge_log(
    location: Path, judge: Judge, count: Callable[[int], None] | None = None
) -> tuple[list[Outcome], Spent | None]:
    """Judge every response in a log, write the scores into it, and return the outcomes and what the judge's calls took.

    Raises:
        JudgeUnavailable: some verdicts are missing; the log stays as it was.
    """
    from cst_bench.compliance.inspect_task import case_of

    verdicts: dict[SampleKey, Verdict] = {}
    for cases in chunks(((sample.id, sample.epoch), case_of(sample)) for sample in read_samples(location)):
        answers = ask(judge, [case for _, case in cases], count)
        verdicts |= {key: verdict for (key, _), verdict in zip(cases, answers, strict=True)}
    temporary = location.with_suffix(JUDGED_SUFFIX)
    try:
        outcomes = run_to_end(lambda: _write_scored(location, temporary, judge, verdicts))
        temporary.replace(location)
    finally:
        temporary.unlink(missing_ok=True)
    return outcomes, total_spent(list(verdicts.values()))


def read_outcomes(location: Path) -> list[Outcome]:
    """Read the outcomes of a judged log, in the order of its samples."""
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    with explained_log(location):
        return [outcome_of(sample.metadata, (sample.scores or {})[SCORER]) for sample in read_samples(location)]


def responses_digest(location: Path) -> str:
    """Return the SHA-256 of what a log says of its responses, without what judges said of them.

    It stays the same when the responses are judged again, and covers all that a verdict or a score is computed from.
    The samples are read as JSON and not by Inspect, which takes twelve times as long.

    Raises:
        Exception: any that a damaged log leads to.
    """
    import inspect_ai.log  # noqa: F401  it teaches zipfile how Inspect compresses

    total = hashlib.sha256()
    with zipfile.ZipFile(location) as log:
        for name in sorted({name for name in log.namelist() if name.startswith("samples/")}):
            sample = json.loads(log.read(name))
            total.update(canonical_json(_of_response(sample)).encode("utf-8", "surrogatepass"))
            total.update(b"\n")
    return total.hexdigest()


def _of_response(sample: Mapping[str, Any]) -> list[JsonValue]:
    """Return what a sample says of its response: only values that other versions of Inspect write alike."""
    asked, output = sample["input"], sample["output"]
    usage = output.get("usage") or {}
    return [
        sample["id"],
        sample["epoch"],
        sample["metadata"],
        asked if isinstance(asked, str) else [[turn["role"], turn["content"]] for turn in asked],
        [[choice["message"]["content"], choice.get("stop_reason")] for choice in output["choices"]],
        output.get("completion"),
        [usage.get(name) for name in ("input_tokens", "output_tokens", "reasoning_tokens")],
    ]


async def _write_scored(
    location: Path, target: Path, judge: Judge, verdicts: Mapping[SampleKey, Verdict]
) -> list[Outcome]:
    """Write a copy of a log with the scores that follow from verdicts; return the outcomes.

    Inspect scores and writes a chunk at a time, and the metrics of the whole follow from the outcomes: `score_async` on
    all samples would hold a task and a score of each.
    """
    from inspect_ai import score_async
    from inspect_ai.log import condense_sample, read_eval_log_async, read_eval_log_samples_by_id
    from inspect_ai.log._recorders.eval import EvalRecorder  # what `inspect score --stream` writes with

    from cst_bench.compliance.inspect_task import SCORER, behaviour, known_verdicts, outcome_of

    header = await read_eval_log_async(str(location), header_only=True)
    recorder = EvalRecorder(str(target.parent))
    await recorder.log_init(header.eval, str(target), clean=True)
    await recorder.log_start(header.eval, header.plan)
    known_verdicts.set(verdicts)
    outcomes: list[Outcome] = []
    results: list[EvalResults] = []

    async def score_chunk(keys: Sequence[SampleKey]) -> None:
        samples = await asyncio.to_thread(read_eval_log_samples_by_id, str(location), keys)
        # 'none/none': the responses are there, and the checkpoint is not to be loaded a second time
        scored = await score_async(
            header.model_copy(update={"samples": samples}),
            [behaviour(judge)],
            model="none/none",
            action="overwrite",
            display="none",
            copy=False,
        )
        assert scored.results is not None
        results.append(scored.results)
        for sample in samples:
            outcomes.append(outcome_of(sample.metadata, (sample.scores or {})[SCORER]))
            await recorder.log_sample(header.eval, condense_sample(sample))
        await recorder.flush(header.eval)

    for keys in chunks(sample_keys(header)):
        await score_chunk(keys)
    await recorder.log_finish(
        header.eval,
        header.status,
        header.stats,
        _results_of_all(results, outcomes),
        None,
        header.error,
        header_only=True,
        invalidated=header.invalidated,
        log_updates=header.log_updates,
        config_updates=header.config_updates,
    )
    return outcomes


def _results_of_all(parts: Sequence[EvalResults], outcomes: Sequence[Outcome]) -> EvalResults:
    """Return the results of all samples, given those of each chunk."""
    from inspect_ai.log import EvalMetric

    from cst_bench.compliance.inspect_task import metric_values

    scores = [part.scores[0] for part in parts]
    values = metric_values(outcomes)
    known = scores[0].metrics
    metrics = {
        name: known.get(name, EvalMetric(name=name, value=0)).model_copy(update={"value": value})
        for name, value in values.items()
    }
    score = scores[0].model_copy(
        update={
            "scored_samples": sum(score.scored_samples or 0 for score in scores),
            "unscored_samples": sum(score.unscored_samples or 0 for score in scores),
            "metrics": metrics,
        }
    )
    return parts[0].model_copy(
        update={"total_samples": len(outcomes), "completed_samples": len(outcomes), "scores": [score]}
    )
