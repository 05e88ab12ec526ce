"""Runs compliance tasks through Inspect, first generation, then judging, so that a failing judge loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cst_bench.compliance.scores import Outcome
from cst_bench.errors import Interrupted
from cst_bench.files import DISK_FULL
from cst_bench.judging import ask, total_spent

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

    from cst_bench.judging import Judge


def generate(task: Task, model: Model, folder: Path, count: Callable[[int], None]) -> Path:
    """All responses of a task, in an Inspect log in `folder`, whose path is returned.

    Samples that an earlier, killed call finished are kept, and `count` is told how many those are before it is told
    of each new one.

    Raises:
        Interrupted: some samples failed (the API was down, say); the same call tries those again.
        OSError: there was no room to write the log.
    """
    from inspect_ai import eval_set

    from cst_bench.compliance.inspect_task import on_sample

    count(_finished(folder))
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
            log_buffer=1,
            log_realtime=False,
            log_model_api=False,
            max_retries=5,
            attempt_timeout=600,
            max_samples=2 * model.api.max_connections(),
        )
    finally:
        on_sample.reset(token)
    if not logs or logs[0].status == "cancelled":
        raise KeyboardInterrupt  # which Inspect takes to cancel its samples, and keeps
    if not success:
        _raise_disk_full(logs[0], folder)
        raise Interrupted(_failure(logs[0]))
    location = Path(logs[0].location.removeprefix("file://")).resolve()
    for cut_off in folder.glob("*.eval"):  # what killed calls left; all of it is in the last log
        if cut_off.resolve() != location:
            cut_off.unlink()
    return location


def judge_log(
    location: Path, judge: Judge, count: Callable[[int], None] | None = None
) -> tuple[list[Outcome], dict[str, Any]]:
    """Judges every response in a log, writes the scores into it, and returns the outcomes and what judging took.

    Raises:
        JudgeUnavailable: some verdicts could not be had; the log stays as it was.
    """
    from inspect_ai import score
    from inspect_ai.log import read_eval_log, write_eval_log

    from cst_bench.compliance.inspect_task import behaviour, case_of

    log = read_eval_log(str(location))
    samples = log.samples or []
    verdicts = ask(judge, [case_of(sample) for sample in samples], count)
    given = {(sample.id, sample.epoch): verdict for sample, verdict in zip(samples, verdicts, strict=True)}
    # 'none/none': the responses are there, and the checkpoint is not to be loaded a second time
    scored = score(log, behaviour(judge, given), model="none/none", action="overwrite", display="none", copy=False)
    temporary = location.with_suffix(".tmp.eval")
    write_eval_log(scored, str(temporary))
    temporary.replace(location)
    return outcomes(scored), total_spent(verdicts)


def read_outcomes(location: Path) -> list[Outcome]:
    """The outcomes of a log that has been judged."""
    from inspect_ai.log import read_eval_log

    return outcomes(read_eval_log(str(location)))


def outcomes(log: EvalLog) -> list[Outcome]:
    """The outcomes in a judged log, in the order of the samples' ids."""
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    return [outcome_of(sample.metadata, (sample.scores or {})[SCORER]) for sample in log.samples or []]


def _finished(folder: Path) -> int:
    """Samples that a killed call left finished in the newest log of a folder."""
    from inspect_ai.log import list_eval_logs, read_eval_log_sample_summaries

    logs = list_eval_logs(str(folder)) if folder.is_dir() else []
    if not logs:
        return 0
    return sum(summary.completed and not summary.error for summary in read_eval_log_sample_summaries(logs[0]))


def _raise_disk_full(log: EvalLog, folder: Path) -> None:
    """Inspect makes an error of the task out of a write that failed; a full disk is the user's to know of."""
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
    return f"{count} failed ({first.strip().splitlines()[0]}); the same command tries them again"


def usage(location: Path) -> dict[str, int]:
    """Tokens in and out of a log, and how many responses ended for which reason."""
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(location))
    used = log.stats.model_usage.values()
    reasons = Counter(f"stopped by {sample.output.stop_reason}" for sample in log.samples or [])
    return {
        "input_tokens": sum(one.input_tokens for one in used),
        "output_tokens": sum(one.output_tokens for one in used),
        **dict(sorted(reasons.items())),
    }
