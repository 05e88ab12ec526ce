"""Judge the responses in an Inspect log, and read what was judged. No more than a chunk of samples is in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.stored_samples import (
    SampleKey,
    chunks,
    read_samples,
    read_summaries,
    sample_keys,
)
from cst_bench.event_loop import run_to_end
from cst_bench.judging import ask, total_spent
from cst_bench.record import Spent

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample

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
    temporary = location.with_suffix(".tmp.eval")
    try:
        outcomes = run_to_end(lambda: _write_scored(location, temporary, judge, verdicts))
        temporary.replace(location)
    finally:
        temporary.unlink(missing_ok=True)
    return outcomes, total_spent(list(verdicts.values()))


def read_outcomes(location: Path) -> list[Outcome]:
    """Read the outcomes of a judged log, in the order of its samples."""
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    return [outcome_of(summary.metadata, (summary.scores or {})[SCORER]) for summary in read_summaries(location)]


async def _write_scored(
    location: Path, target: Path, judge: Judge, verdicts: Mapping[SampleKey, Verdict]
) -> list[Outcome]:
    """Write a copy of a log with the scores that follow from verdicts, as `inspect score --stream` does."""
    from inspect_ai import score_async
    from inspect_ai.log import EvalResults, condense_sample, read_eval_log_async, read_eval_log_samples_by_id
    from inspect_ai.log._recorders.eval import EvalRecorder  # what `inspect score --stream` writes with

    from cst_bench.compliance.inspect_task import SCORER, behaviour, known_verdicts, outcome_of

    header = await read_eval_log_async(str(location), header_only=True)
    keys = sample_keys(header)
    header.results = EvalResults(total_samples=len(keys), completed_samples=len(keys))
    recorder = EvalRecorder(str(target.parent))
    await recorder.log_init(header.eval, str(target), clean=True)
    await recorder.log_start(header.eval, header.plan)
    outcomes: list[Outcome] = []
    rest = chunks(keys)
    samples: deque[EvalSample] = deque()
    turn = asyncio.Lock()  # Inspect starts to score all samples at once; they take their turns in their order

    @asynccontextmanager
    async def next_sample(_: int) -> AsyncIterator[EvalSample]:
        async with turn:
            if not samples:
                await recorder.flush(header.eval)
                samples.extend(await asyncio.to_thread(read_eval_log_samples_by_id, str(location), next(rest)))
            sample = samples.popleft()
            yield sample
            outcomes.append(outcome_of(sample.metadata, (sample.scores or {})[SCORER]))
            await recorder.log_sample(header.eval, condense_sample(sample))

    known_verdicts.set(verdicts)
    # 'none/none': the responses are there, and the checkpoint is not to be loaded a second time
    scored = await score_async(
        header,
        [behaviour(judge)],
        model="none/none",
        action="overwrite",
        display="none",
        copy=False,
        samples=next_sample,
    )
    await recorder.log_finish(
        scored.eval,
        scored.status,
        scored.stats,
        scored.results,
        scored.reductions,
        scored.error,
        header_only=True,
        invalidated=scored.invalidated,
        log_updates=scored.log_updates,
        config_updates=scored.config_updates,
    )
    return outcomes
