"""Run steps in separate processes, several at a time, each after those it needs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cst_bench.errors import CstBenchError, Interrupted
from cst_bench.interruption import AGAIN, announce, on_signals
from cst_bench.reproduce.steps import Step

_TAIL = 12


class StepFailed(CstBenchError):
    """A step ended with an error, which the message shows."""

    exit_status = 2


def run_steps(steps: Sequence[Step], logs: Path, *, workers: int, done: Callable[[Step, float], None]) -> None:
    """Run every step without a result, and call `done` with each step and its seconds, 0 for steps with a result.

    The output of each step is written to its own file in `logs`. The first signal to stop is passed on to the running
    steps, which then end as they do at a first signal; at the second they stop at once.

    Raises:
        StepFailed: a step failed; those that were running are stopped at once, and continue with the next call.
        Interrupted: a step was interrupted and can be continued.
        KeyboardInterrupt: a signal came.
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
    running = _Running(logs)
    try:
        with on_signals(running.react):
            while waiting or running.steps:
                if running.stop_requested:
                    running.pass_on()
                else:
                    ready = [step for step in waiting if finished.issuperset(step.after)]
                    for step in ready[: workers - len(running.steps)]:
                        waiting.remove(step)
                        running.start(step)
                for step, seconds in running.ended():
                    finished.add(step.name)
                    done(step, seconds)
                if running.stop_requested and not running.steps:
                    raise KeyboardInterrupt
                time.sleep(0.05)
    finally:
        running.stop()


class _Running:
    """Steps that are running, each in a process."""

    def __init__(self, logs: Path) -> None:
        self.steps: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
        self.stop_requested = False
        self._told: set[str] = set()
        """Steps that the signal was passed on to."""
        self._logs = logs
        self._announce = announce.get()

    def react(self, requests: int) -> bool:
        """React to a signal, as `on_signals` asks for it: the first is passed on by `pass_on`."""
        if requests > 1:
            return False
        self.stop_requested = True
        if self.steps:
            self._announce(f"interrupted: finishing what is in flight in {', '.join(self.steps)}; {AGAIN}")
        return True

    def start(self, step: Step) -> None:
        """Start a step."""
        self.steps[step.name] = (step, _start(step, self._logs), time.monotonic())

    def ended(self) -> Iterator[tuple[Step, float]]:
        """Forget the steps that have ended, and yield the finished ones with their seconds.

        Raises:
            StepFailed: a step failed.
            Interrupted: a step was interrupted, and not by a signal to this process.
        """
        for name, (step, process, started) in list(self.steps.items()):
            if process.poll() is None:
                continue
            del self.steps[name]
            if process.returncode == 0:
                yield step, time.monotonic() - started
            elif not self.stop_requested:
                _fail(step, process.returncode, self._logs)

    def pass_on(self) -> None:
        """Pass the first signal on to the steps that have not got it."""
        for name, (_, process, _) in self.steps.items():
            if name not in self._told:
                self._told.add(name)
                process.terminate()

    def stop(self) -> None:
        """Stop the steps that are still running at once, and wait for them."""
        for name, (_, process, _) in self.steps.items():
            if name in self._told:
                process.terminate()  # a second signal, at which it still closes its log
            else:
                process.kill()
        for _, process, _ in self.steps.values():
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
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
            preexec_fn=_end_with_parent,
        )


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """End a step when the chain is killed, so that the next call finds its folder free (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # SIGTERM would first finish what is in flight


def _log(step: Step, logs: Path) -> Path:
    return logs / f"{step.name.replace(' ', '-')}.log"


def _fail(step: Step, status: int, logs: Path) -> None:
    lines = _log(step, logs).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    output = "\n".join(lines[-_TAIL:])
    message = f"step {step.name!r} ended with status {status}: cst-bench {' '.join(step.command)}\n{output}"
    if status == Interrupted.exit_status or status < 0:
        raise Interrupted(f"{message}\nthe same command continues the chain")
    raise StepFailed(message)
