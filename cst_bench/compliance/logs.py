"""Run compliance tasks through Inspect: generation first, then judging, so that a failing judge loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.errors import Interrupted
from cst_bench.files import DISK_FULL
from cst_bench.judging import ask, total_spent
from cst_bench.record import Spent, Usage

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

    from cst_bench.judging import Judge

_ATTEMPT_TIMEOUT = 600
"""Seconds after which a request to an API is sent again."""


def generate(task: Task, model: Model, folder: Path, count: Callable[[int], None]) -> Path:
    """Generate all responses of a task into an Inspect log in `folder`, and return its path.

    Samples that an earlier, killed call finished are kept; `count` gets their number first, then each new one.

    Raises:
        Interrupted: some samples failed (the API was down, say); the same call retries them.
        OSError: the disk is full.
    """
    from inspect_ai import eval_set

    from cst_bench.checkpoint.provider import CstModelAPI
    from cst_bench.compliance.inspect_task import on_sample

    count(_finished(folder))
    connections = model.api.max_connections()
    token = on_sample.set(count)
    try:
        success, logs = eval_set(
            task,
            log_dir=str(folder),
            model=model,
            score=False,
            display="none",
            log_level="error",
            log_format="eval",
            retry_attempts=0,
            retry_immediate=False,
            continue_on_fail=True,
            log_buffer=_flush_after(task, connections),
            log_realtime=False,
            log_model_api=False,
            max_retries=5,
            # a request to our own provider waits for its place in a batch, and to send it again only adds work
            attempt_timeout=None if isinstance(model.api, CstModelAPI) else _ATTEMPT_TIMEOUT,
            max_samples=2 * connections,
        )
    finally:
        on_sample.reset(token)
    if not logs or logs[0].status == "cancelled":
        raise KeyboardInterrupt  # which Inspect takes to cancel its samples, and keeps
    if not success:
        _raise_disk_full(logs[0], folder)
        raise Interrupted(_failure(logs[0]))
    location = Path(logs[0].location.removeprefix("file://")).resolve()
    for unfinished in folder.glob("*.eval"):  # logs of killed calls; the last log has all their samples
        if unfinished.resolve() != location:
            unfinished.unlink()
    return location


def _flush_after(task: Task, connections: int) -> int:
    """Return after how many samples the log is written: each time all summaries are, so 200 times in all at most.

    A killed call loses no more finished samples than are asked for at once.
    """
    return max(1, min(len(task.dataset) * (task.epochs or 1) // 200, connections))


def judge_log(
    location: Path, judge: Judge, count: Callable[[int], None] | None = None
) -> tuple[list[Outcome], Spent | None]:
    """Judge every response in a log, write the scores into it, and return the outcomes and what the judge's calls took.

    Raises:
        JudgeUnavailable: some verdicts are missing; the log stays as it was.
    """
    from inspect_ai import score
    from inspect_ai.log import read_eval_log, write_eval_log

    from cst_bench.compliance.inspect_task import behaviour, case_of, known_verdicts

    log = read_eval_log(str(location))
    samples = log.samples or []
    verdicts = ask(judge, [case_of(sample) for sample in samples], count)
    by_sample = {(sample.id, sample.epoch): verdict for sample, verdict in zip(samples, verdicts, strict=True)}
    token = known_verdicts.set(by_sample)
    try:
        # 'none/none': the responses are there, and the checkpoint is not to be loaded a second time
        scored = score(log, behaviour(judge), model="none/none", action="overwrite", display="none", copy=False)
    finally:
        known_verdicts.reset(token)
    temporary = location.with_suffix(".tmp.eval")
    write_eval_log(scored, str(temporary))
    temporary.replace(location)
    return outcomes(scored), total_spent(verdicts)


def read_outcomes(location: Path) -> list[Outcome]:
    """Read the outcomes of a judged log."""
    from inspect_ai.log import read_eval_log

    return outcomes(read_eval_log(str(location)))


def outcomes(log: EvalLog) -> list[Outcome]:
    """Return the outcomes of a judged log, in the order of its samples."""
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    return [outcome_of(sample.metadata, (sample.scores or {})[SCORER]) for sample in log.samples or []]


def _finished(folder: Path) -> int:
    """Count the finished samples in the newest log of a folder, as a killed call left it."""
    from inspect_ai.log import list_eval_logs, read_eval_log_sample_summaries

    logs = list_eval_logs(str(folder)) if folder.is_dir() else []
    if not logs:
        return 0
    return sum(summary.completed and not summary.error for summary in read_eval_log_sample_summaries(logs[0]))


def _raise_disk_full(log: EvalLog, folder: Path) -> None:
    """Raise OSError if the disk is full: Inspect reports a failed write as an error of the task."""
    text = log.error.traceback if log.error is not None else ""
    for number in DISK_FULL:
        if f"[Errno {number}]" in text:
            raise OSError(number, os.strerror(number), str(folder))
    if shutil.disk_usage(folder).free < 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _failure(log: EvalLog) -> str:
    failed = [sample.error for sample in log.samples or [] if sample.error is not None]
    first = failed[0].message if failed else log.error.message if log.error else "no reason given"
    count = f"{len(failed)} responses of {log.eval.task}" if failed else f"task {log.eval.task}"
    return f"{count} failed ({first.strip().splitlines()[0]}); run the same command to retry them"


def usage(location: Path) -> Usage:
    """Read the tokens of a log, how its responses ended, and how many have thoughts."""
    from inspect_ai.log import read_eval_log

    from cst_bench.checkpoint.thought_messages import has_thoughts, missing_answer

    log = read_eval_log(str(location))
    samples = log.samples or []
    used = log.stats.model_usage.values()
    stop_reasons = Counter(str(sample.output.stop_reason) for sample in samples)
    thoughts = sum(any(m.role == "assistant" and has_thoughts(m) for m in sample.messages) for sample in samples)
    thought_tokens = sum(
        usage.reasoning_tokens or 0 for sample in samples for usage in sample.model_usage.values()
    )  # the statistics of a log lack what a killed call generated
    without_answer = sum(missing_answer(sample.output) is not None for sample in samples)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        stop_reasons=dict(sorted(stop_reasons.items())),
        thoughts=thoughts or None,
        thought_tokens=thought_tokens or None,
        without_answer=without_answer or None,
    )
