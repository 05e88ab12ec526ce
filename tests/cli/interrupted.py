"""Send signals to the command line in another process."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.invoke import command

AGAIN = "again to stop at once"


class Running:
    """A running `cst-bench`, whose standard error is kept in a file."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process = process
        self._errors = errors

    @property
    def said(self) -> str:
        return self._errors.read_text()

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Wait until something holds; the process must still be running then."""
        deadline = time.monotonic() + 300
        while not ready():
            assert self.process.poll() is None, f"it ended before it could be interrupted: {self.said}"
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def interrupt(self, number: signal.Signals = signal.SIGINT, *, twice: bool = False) -> None:
        """Send a signal, wait until it is answered, and send another if `twice`."""
        self.process.send_signal(number)
        if twice:
            self.wait_until(lambda: AGAIN in self.said)
            self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(300)


@contextmanager
def running(*args: str, cwd: Path, ignore_sigint: bool = False) -> Iterator[Running]:
    """Start `cst-bench ARGS`, with SIGINT as a terminal leaves it, or ignored, as in a shell's background job."""
    errors = cwd / "said.txt"
    sigint = signal.SIG_IGN if ignore_sigint else signal.SIG_DFL
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command(*args),
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
        )
    try:
        yield Running(process, errors)
    finally:
        process.kill()
        process.wait()
