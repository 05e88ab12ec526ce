"""Run steps in separate processes, several at a time, each after those it needs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cst_bench.errors import CstBenchError, Interrupted
from cst_bench.reproduce.steps import Step

_TAIL = 12


class StepFailed(CstBenchError):
    """A step ended with an error, which the message shows."""

    exit_status = 2


def run_steps(steps: Sequence[Step], logs: Path, *, workers: int, done: Callable[[Step, float], None]) -> None:
    """Run every step without a result, and call `done` with each step and its seconds, 0 for steps with a result.

    The output of each step is written to its own file in `logs`.

    Raises:
        StepFailed: a step failed; those that were running are ended, and continue with the next call.
        Interrupted: a step was interrupted and can be continued.
    """
    logs.mkdir(parents=True, exist_ok=True)
    finished: set[str] = set()
    waiting: list[Step] = []
    for step in steps:
        if step.makes.is_file():
            finished.add(step.name)
            done(step, 0.0)
        else:
            waiting.append(step)
    running: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            for step in [step for step in waiting if finished.issuperset(step.after)][: workers - len(running)]:
                waiting.remove(step)
                running[step.name] = (step, _start(step, logs), time.monotonic())
            for name, (step, process, started) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode != 0:
                    _fail(step, process.returncode, logs)
                finished.add(name)
                done(step, time.monotonic() - started)
            time.sleep(0.05)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()


def _start(step: Step, logs: Path) -> subprocess.Popen[bytes]:
    # one thread a worker: two that share a core with another step's are many times slower
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with _log(step, logs).open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - this program, with arguments of its own, without a shell
            [sys.executable, "-m", "cst_bench", *step.command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=_end_with_parent,
        )


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """End a step when the chain is killed, so that the next call finds its folder free (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _log(step: Step, logs: Path) -> Path:
    return logs / f"{step.name.replace(' ', '-')}.log"


def _fail(step: Step, status: int, logs: Path) -> None:
    lines = _log(step, logs).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    output = "\n".join(lines[-_TAIL:])
    message = f"step {step.name!r} ended with status {status}: cst-bench {' '.join(step.command)}\n{output}"
    if status == Interrupted.exit_status or status < 0:
        raise Interrupted(f"{message}\nthe same command continues the chain")
    raise StepFailed(message)
