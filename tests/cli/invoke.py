"""Runs the command line as a user does, in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cst_bench.cli import main


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> Outcome:
    """`cst-bench ARGS`, without the cost of a new process."""
    monkeypatch.setattr(sys, "argv", ["cst-bench", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return Outcome(int(stop.value.code or 0), captured.out, captured.err)


def command(*args: str) -> list[str]:
    """The same as the command of a subprocess."""
    return [sys.executable, "-m", "cst_bench", *args]


def in_process(*args: str, cwd: Path) -> Outcome:
    """The same in a process of its own."""
    done = subprocess.run(command(*args), cwd=cwd, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)
