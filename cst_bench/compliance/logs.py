"""Generate the responses of a task through Inspect into its log; `judged_log` judges them."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.call_failures import CallFailures, call_failures
from cst_bench.compliance.stored_samples import JUDGED_SUFFIX, explained_log, read_samples
from cst_bench.errors import Interrupted, UserError
from cst_bench.files import DISK_FULL, read_text
from cst_bench.interruption import finishing_first
from cst_bench.record import Usage
from cst_bench.secrets import redact

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

_EVAL_SET = ".eval-set-id"
"""File of Inspect's, with the name that it gives to the logs of a folder."""
_MISREAD = re.compile(r"[#?]|%[0-9A-Fa-f]{2}")
_ATTEMPT_TIMEOUT = 600
"""Seconds after which a request to an API is sent again."""


class ResponsesFailed(Interrupted):
    """Some responses failed, and the others are kept; the same call retries them."""

    def __init__(self, message: str, *, gave_up: bool) -> None:
        """Keep whether the rest were not asked for, since too many had failed in a row."""
        super().__init__(message)
        self.gave_up = gave_up


def generate(task: Task, model: Model, folder: Path, count: Callable[[int], None]) -> Path:
    """Generate all responses of a task into an Inspect log in `folder`, and return its path.

    Samples that an earlier, killed call finished are kept; `count` gets their number first, then each new one.

    At the first signal to stop, the responses in flight are finished and logged, at the second they are not.

    Raises:
        ResponsesFailed: some samples failed (the API was down, say); the same call retries them.
        KeyboardInterrupt: a signal came; the same call generates the rest.
        OSError: the disk is full.
    """
    from inspect_ai import eval_set

    from cst_bench.checkpoint.provider import CstModelAPI
    from cst_bench.compliance import sample_hooks  # noqa: F401  (Inspect calls it)
    from cst_bench.compliance.inspect_task import on_sample

    count(_keep_fullest(folder))
    folder = folder.absolute()
    connections = model.api.max_connections()
    in_process = isinstance(model.api, CstModelAPI)
    failures = CallFailures()
    token, failures_token = on_sample.set(count), call_failures.set(failures)
    try:
        with finishing_first("responses", queued=in_process):
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
                retry_cleanup=False,  # it would keep the log with the newest time stamp, which may be another
                continue_on_fail=True,
                log_buffer=_flush_after(len(task.dataset) * (task.epochs or 1)),
                log_realtime=False,
                log_model_api=False,
                max_retries=5,
                # a request to our own provider waits for its place in a batch, and to send it again only adds work
                attempt_timeout=None if in_process else _ATTEMPT_TIMEOUT,
                max_samples=2 * connections,
            )
    finally:
        on_sample.reset(token)
        call_failures.reset(failures_token)
    if not logs or logs[0].status == "cancelled":
        raise KeyboardInterrupt  # which Inspect takes to cancel its samples, and keeps
    if not success:
        _raise_disk_full(logs[0], folder)
        raise ResponsesFailed(_failure(logs[0], failures), gave_up=failures.gave_up)
    location = Path(logs[0].location.removeprefix("file://")).resolve()
    for unfinished in folder.glob("*.eval"):  # logs of killed calls; the last log has all their samples
        if unfinished.resolve() != location:
            unfinished.unlink()
    return location


def _flush_after(samples: int) -> int:
    """Return after how many samples the log is written, 200 times in all at most: each time is a copy of all of it.

    A killed call loses no more finished samples than that.
    """
    return math.ceil(samples / 200)


def finished_responses(folder: Path) -> int:
    """Count the finished samples in the fullest log of a folder and of each folder in it, as killed calls left them."""
    folders = [folder, *(path for path in folder.glob("*") if path.is_dir())]
    return sum(max(_finished_by_log(path).values(), default=0) for path in folders)


def _keep_fullest(folder: Path) -> int:
    """Remove all logs but the one with the most finished samples, and return their number.

    What a killed judging left half written is removed, too.

    A call that continues copies the samples of the log before it, and takes that with the newest time stamp for it: if
    the clock went back between two killed calls, that would be the log of the earlier one.
    """
    for unfinished in folder.glob(f"*{JUDGED_SUFFIX}"):
        unfinished.unlink()
    logs = _finished_by_log(folder)
    fullest = max(logs, key=lambda path: logs[path], default=None)
    for path in logs.keys() - {fullest}:
        path.unlink()
    return 0 if fullest is None else logs[fullest]


def _finished_by_log(folder: Path) -> dict[Path, int]:
    """Return the number of finished samples of each log in a folder, the newest first.

    Raises:
        UserError: a log is damaged.
    """
    from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries

    name = folder / _EVAL_SET
    try:
        _ = read_text(name) if name.is_file() else ""
    except UserError as error:
        raise UserError(f"{error}: delete it and repeat the command, which makes it again") from None
    finished = {}
    logs = [path for path in folder.glob("*.eval") if not path.name.endswith(JUDGED_SUFFIX)]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        with explained_log(path):
            read_eval_log(str(path), header_only=True)
            summaries = read_eval_log_sample_summaries(str(path))
        finished[path] = sum(summary.completed and not summary.error for summary in summaries)
    return finished


def require_log_path(folder: Path) -> None:
    """Check that Inspect can find its logs in a run folder again: it reads a path as an address, and decodes it.

    Raises:
        UserError: the absolute path has `#`, `?`, or `%` before two hexadecimal digits.
    """
    misread = _MISREAD.search(str(folder.absolute()))
    if misread is not None:
        raise UserError(
            f"{folder.absolute()}: Inspect, which writes the responses, misreads {misread[0]!r} in a path: "
            "give another folder with --out"
        )


def _raise_disk_full(log: EvalLog, folder: Path) -> None:
    """Raise OSError if the disk is full: Inspect reports a failed write as an error of the task."""
    text = log.error.traceback if log.error is not None else ""
    for number in DISK_FULL:
        if f"[Errno {number}]" in text:
            raise OSError(number, os.strerror(number), str(folder))
    if shutil.disk_usage(folder).free < 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _failure(log: EvalLog, failures: CallFailures) -> str:
    task = log.eval.task
    if failures.reason is None:
        message = log.error.message.strip() if log.error else ""
        first = redact(message.splitlines()[0]) if message else "no reason given"
        return f"task {task} failed ({first}); run the same command to retry it"
    rest = ", and the rest were not asked for" if failures.gave_up else ""
    noun = "response" if failures.total == 1 else "responses"
    return (
        f"{failures.total} {noun} of {task} failed ({failures.reason}){rest}; the other responses are kept: "
        "run the same command to retry them"
    )


def usage(location: Path) -> Usage:
    """Read the tokens of a log, how its responses ended, and how many have thoughts."""
    from inspect_ai.log import read_eval_log

    from cst_bench.checkpoint.thought_messages import has_thoughts, missing_answer

    stop_reasons: Counter[str] = Counter()
    thoughts = thought_tokens = without_answer = 0
    for sample in read_samples(location, of_compliance=False):
        stop_reasons[str(sample.output.stop_reason)] += 1
        thoughts += any(m.role == "assistant" and has_thoughts(m) for m in sample.messages)
        # the statistics of a log lack what a killed call generated
        thought_tokens += sum(usage.reasoning_tokens or 0 for usage in sample.model_usage.values())
        without_answer += missing_answer(sample.output) is not None
    used = read_eval_log(str(location), header_only=True).stats.model_usage.values()
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        stop_reasons=dict(sorted(stop_reasons.items())),
        thoughts=thoughts or None,
        thought_tokens=thought_tokens or None,
        without_answer=without_answer or None,
    )
